"""The way of a record from the process to the collector: spool, shipper, exporters, and what dead processes left."""

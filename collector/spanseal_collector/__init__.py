"""The collector: OTLP in; admission, sealing and group commit; ClickHouse and the checkpoint log out."""

"""ClickHouse storage of the audit log: schema, engine, data directory, queries and verification at speed."""

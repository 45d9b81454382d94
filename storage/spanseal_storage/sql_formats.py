"""Which output formats a statement from outside may ask for."""

from __future__ import annotations

__all__ = ["FORMATS"]

FORMATS = frozenset(
    {
        "Arrow",
        "ArrowStream",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "JSON",
        "JSONCompact",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONEachRow",
        "JSONStrings",
        "Markdown",
        "Native",
        "Null",
        "Parquet",
        "Pretty",
        "PrettyCompact",
        "PrettySpace",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "TSV",
        "TSVRaw",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedRaw",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "Values",
        "Vertical",
        "XML",
    }
)
"""Output formats that need no file or schema of their own."""

"""Which files are tables, by their suffix. Imports none of the readers, so that it costs no start-up time."""

from __future__ import annotations

from tlcli.storage.urls import Location

DELIMITED_SUFFIXES = (".csv", ".tsv")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
TABLE_SUFFIXES = (*DELIMITED_SUFFIXES, *JSON_SUFFIXES, ".parquet")


def is_table(location: Location) -> bool:
    """Return whether a location is that of a table, by its suffix."""
    return location.suffix.lower() in TABLE_SUFFIXES

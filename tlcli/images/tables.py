"""DATA as a table: columns path and label, optionally split and group."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.errors import DataError
from tlcli.files import from_portable_name
from tlcli.images.shards import in_shard
from tlcli.storage.stored import Stored

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One labelled picture, its class still a name."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None


def read_table(path: Path) -> list[Row]:
    """The rows of a .csv, .jsonl or .parquet table; paths in it are relative to the table's folder.

    Raises:
        DataError: it cannot be read, lacks a column, has empty or unknown values, or names files that don't exist.
    """
    table = _load(path)
    missing = [name for name in ("path", "label") if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(table.column_names) or 'none'}. "
            "Expected path and label, optionally split and group.",
            path=path,
        )
    rows = with_train([_row(path, line, record) for line, record in enumerate(table.to_pylist(), start=1)])
    absent = [row.path for row in rows if not isinstance(row.path, Stored) and not os.path.isfile(row.path)]  # noqa: PTH113 - many paths
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of the {len(rows)} paths in it do not exist, such as {', '.join(absent[:3])}. "
            f"Paths are relative to the folder that the table lies in ({path.parent.absolute()}).",
            path=path,
        )
    return rows


def with_train(rows: list[Row]) -> list[Row]:
    """The rows; where some name a split, those that don't belong to train."""
    if not any(row.split for row in rows):
        return rows
    return [row if row.split else replace(row, split="train") for row in rows]


def _load(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        match path.suffix.lower():
            case ".csv":
                # Every column as text: a label "007" is no number, and "NA" is a fine class.
                with pyarrow.csv.open_csv(path) as reader:
                    names = reader.schema.names
                types = dict.fromkeys(names, pa.string())
                convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
                parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
                return pyarrow.csv.read_csv(path, convert_options=convert, parse_options=parse)
            case ".jsonl":
                return _load_jsonl(path)
            case _:
                return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a {path.suffix} table: {error}", path=path) from error


def _load_jsonl(path: Path) -> pa.Table:
    """Every column as text; pyarrow's own reader takes a label like 2024-01-02 for a time."""
    import pyarrow as pa

    records = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    if any(not isinstance(record, dict) for record in records):
        raise ValueError("a line is no JSON object")
    columns = {name: [record.get(name) for record in records] for name in dict.fromkeys(k for r in records for k in r)}
    texts = {name: [None if value is None else str(value) for value in values] for name, values in columns.items()}
    return pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})


def _row(table: Path, line: int, record: dict[str, Any]) -> Row:
    for column in ("path", "label"):
        if record[column] is None or record[column] == "":
            raise DataError(f"{table}, row {line}: {column} is empty.", path=table)
    split = record.get("split")
    if split not in {None, ""} and str(split).lower() not in SPLIT_NAMES:
        raise DataError(
            f"{table}, row {line}: split is {split!r}; expected train, validation, test, or nothing.", path=table
        )
    group = record.get("group")
    return Row(
        path=in_shard(os.path.join(table.parent, from_portable_name(str(record["path"])))),  # noqa: PTH118 - as typed
        label=str(record["label"]),
        split=SPLIT_NAMES[str(split).lower()] if split else None,
        group=None if group in {None, ""} else str(group),
    )

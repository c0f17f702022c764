"""DATA as a table: columns path and label, optionally split and group."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlcli.datasets.tars import resolve_tar_member
from tlcli.errors import DataError, UsageError
from tlcli.storage.files import from_portable_name
from tlcli.storage.remote import content_of, stat_all
from tlcli.storage.stored import StoredPath
from tlcli.storage.urls import Location, Url, is_url

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
class LabeledImage:
    """One labeled image, its class still a name."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None


def read_table(path: Location) -> list[LabeledImage]:
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
    rows = default_to_train([_row(path, line, record) for line, record in enumerate(table.to_pylist(), start=1)])
    rows, absent = _found(rows)
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of the {len(rows)} paths in it do not exist, such as {', '.join(absent[:3])}. "
            f"Paths are relative to the folder that the table lies in ({path.parent.absolute()}).",
            path=path,
        )
    return rows


def _found(rows: list[LabeledImage]) -> tuple[list[LabeledImage], list[str]]:
    """The rows, those at URLs with what is to be known of them, and the paths that don't exist."""
    remote = [row.path for row in rows if is_url(row.path) and not isinstance(row.path, StoredPath)]
    known = dict(zip(remote, stat_all([Url(path) for path in remote]), strict=True)) if remote else {}
    absent = [
        row.path
        for row in rows
        if (known[row.path] is None if row.path in known else _is_absent(row.path))
        and not isinstance(row.path, StoredPath)
    ]
    return [replace(row, path=known.get(row.path) or row.path) for row in rows] if known else rows, absent


def _is_absent(path: str) -> bool:
    """Whether there is no such file for sure; of what cannot be looked at, whoever reads it says why."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - many paths
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    except ValueError:  # a NUL in the name
        return True


def default_to_train(rows: list[LabeledImage]) -> list[LabeledImage]:
    """The rows; where some name a split, those that don't belong to train."""
    if not any(row.split for row in rows):
        return rows
    return [row if row.split else replace(row, split="train") for row in rows]


def _load(path: Location) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    content = content_of(path) if isinstance(path, Url) else b""

    def source() -> Path | IO[bytes]:
        return io.BytesIO(content) if isinstance(path, Url) else path

    try:
        match path.suffix.lower():
            case ".csv":
                # Every column as text: a label "007" is no number, and "NA" is a fine class.
                with pyarrow.csv.open_csv(source()) as reader:
                    names = reader.schema.names
                types = dict.fromkeys(names, pa.string())
                convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
                parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
                return pyarrow.csv.read_csv(source(), convert_options=convert, parse_options=parse)
            case ".jsonl":
                return _load_jsonl(content if isinstance(path, Url) else path.read_bytes())
            case _:
                return pyarrow.parquet.read_table(source())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a {path.suffix} table: {error}", path=path) from error


def _load_jsonl(content: bytes) -> pa.Table:
    """Every column as text; pyarrow's own reader takes a label like 2024-01-02 for a time."""
    import pyarrow as pa

    records = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    if any(not isinstance(record, dict) for record in records):
        raise ValueError("a line is no JSON object")
    columns = {name: [record.get(name) for record in records] for name in dict.fromkeys(k for r in records for k in r)}
    texts = {name: [None if value is None else str(value) for value in values] for name, values in columns.items()}
    return pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})


def _row(table: Location, line: int, record: dict[str, Any]) -> LabeledImage:
    for column in ("path", "label"):
        if record[column] is None or record[column] == "":
            raise DataError(f"{table}, row {line}: {column} is empty.", path=table)
    split = record.get("split")
    if split not in {None, ""} and str(split).lower() not in SPLIT_NAMES:
        raise DataError(
            f"{table}, row {line}: split is {split!r}; expected train, validation, test, or nothing.", path=table
        )
    group = record.get("group")
    return LabeledImage(
        path=_joined(table, line, from_portable_name(str(record["path"]))),
        label=str(record["label"]),
        split=SPLIT_NAMES[str(split).lower()] if split else None,
        group=None if group in {None, ""} else str(group),
    )


def _joined(table: Location, line: int, path: str) -> str:
    """A path in a table: as it is where it is absolute or a URL, else behind the table's folder."""
    if not is_url(path) and (isinstance(table, Path) or path.startswith("/")):
        return resolve_tar_member(os.path.join(table.parent, path))  # noqa: PTH118 - as typed
    try:
        url = Url(path) if is_url(path) or isinstance(table, Path) else table.parent / path
    except UsageError as error:
        raise DataError(f"{table}, row {line}: {error.message}", path=table) from error
    return resolve_tar_member(str(url))

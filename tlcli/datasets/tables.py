"""DATA as a table with the columns path and label, and optionally split and group."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlcli.datasets.labeled_image import SPLIT_NAMES, LabeledImage, default_to_train
from tlcli.datasets.tars import resolve_tar_member
from tlcli.errors import DataError, UsageError
from tlcli.storage.files import from_portable_name
from tlcli.storage.remote import content_of, stat_all
from tlcli.storage.stored import StoredPath
from tlcli.storage.urls import Location, Url, is_url

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_table(path: Location) -> list[LabeledImage]:
    """Read a .csv, .jsonl, or .parquet table. Paths in it are relative to the table's folder.

    Raises:
        DataError: The table cannot be read, lacks a column, has empty or unknown values, or names missing files.
    """
    table = _load(path)
    missing = [name for name in ("path", "label") if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(table.column_names) or 'none'}. "
            "Expected the columns path and label, and optionally split and group.",
            path=path,
        )
    rows = default_to_train([_row(path, line, record) for line, record in enumerate(table.to_pylist(), start=1)])
    rows, not_found = _locate_files(rows)
    if not_found:
        raise DataError(
            f"{path}: {len(not_found)} of the {len(rows)} paths in it do not exist, such as "
            f"{', '.join(not_found[:3])}. Paths are relative to the table's folder ({path.parent.absolute()}).",
            path=path,
        )
    return rows


def _locate_files(rows: list[LabeledImage]) -> tuple[list[LabeledImage], list[str]]:
    """Return the rows, with size and version of files at URLs, and the paths that do not exist."""
    remote = [row.path for row in rows if is_url(row.path) and not isinstance(row.path, StoredPath)]
    known = dict(zip(remote, stat_all([Url(path) for path in remote]), strict=True)) if remote else {}
    not_found = [
        row.path
        for row in rows
        if (known[row.path] is None if row.path in known else _is_missing(row.path))
        and not isinstance(row.path, StoredPath)
    ]
    return [replace(row, path=known.get(row.path) or row.path) for row in rows] if known else rows, not_found


def _is_missing(path: str) -> bool:
    """Return whether a file certainly does not exist. If it cannot be checked, reading it reports the reason."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is slow for many paths
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    except ValueError:  # a NUL in the path
        return True


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
                # Read every column as text: the label "007" is not a number, and "NA" is a valid class.
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
    """Read every column as text; pyarrow's own reader parses a label such as 2024-01-02 as a time."""
    import pyarrow as pa

    records = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    if any(not isinstance(record, dict) for record in records):
        raise ValueError("a line is not a JSON object")
    columns = {name: [record.get(name) for record in records] for name in dict.fromkeys(k for r in records for k in r)}
    texts = {name: [None if value is None else str(value) for value in values] for name, values in columns.items()}
    return pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()})


def _row(table: Location, line: int, record: dict[str, Any]) -> LabeledImage:
    for column in ("path", "label"):
        if record[column] is None or record[column] == "":
            raise DataError(f"{table}, row {line}: the column {column} is empty.", path=table)
    split = record.get("split")
    if split not in {None, ""} and str(split).lower() not in SPLIT_NAMES:
        raise DataError(
            f"{table}, row {line}: the split is {split!r}; expected train, validation, test, or nothing.", path=table
        )
    group = record.get("group")
    return LabeledImage(
        path=_resolve_path(table, line, from_portable_name(str(record["path"]))),
        label=str(record["label"]),
        split=SPLIT_NAMES[str(split).lower()] if split else None,
        group=None if group in {None, ""} else str(group),
    )


def _resolve_path(table: Location, line: int, path: str) -> str:
    """Resolve a path in a table: absolute paths and URLs stay, others are relative to the table's folder."""
    if not is_url(path) and (isinstance(table, Path) or path.startswith("/")):
        return resolve_tar_member(os.path.join(table.parent, path))  # noqa: PTH118 - as typed
    try:
        url = Url(path) if is_url(path) or isinstance(table, Path) else table.parent / path
    except UsageError as error:
        raise DataError(f"{table}, row {line}: {error.message}", path=table) from error
    return resolve_tar_member(str(url))

"""Files of rows: write and read CSV, JSON Lines, and Parquet. Torch-free."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

PredictionRow = list[Any]
"""A row's values in the order of the columns: text, numbers, or None."""

SUFFIXES = (".csv", ".jsonl", ".parquet")
PARQUET_BATCH = 10_000
"""Rows in a Parquet row group."""


def write_rows(file: IO[bytes], suffix: str, names: Sequence[str], rows: Iterable[PredictionRow]) -> None:
    """Write rows in the format of a suffix, one of `SUFFIXES`.

    Args:
        file: The open file to write to.
        suffix: The file name's suffix in lower case, which decides the format.
        names: The names of the columns.
        rows: Values in the order of `names`.
    """
    match suffix:
        case ".parquet":
            write_parquet(file, names, rows)
        case ".jsonl":
            for row in rows:
                file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode() + b"\n")
        case _:
            text = io.TextIOWrapper(file, "utf8", newline="")
            write_csv(text, names, rows, header=True)
            text.detach()


def write_csv(file: IO[str], names: Sequence[str], rows: Iterable[PredictionRow], *, header: bool) -> None:
    """Write rows as CSV (RFC 4180, but with plain newlines) and flush."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(names)
    quoting_writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # The csv module quotes a newline but not a bare carriage return, which readers also treat as a line end.
        has_return = any(isinstance(value, str) and "\r" in value for value in row)
        (quoting_writer if has_return else writer).writerow(row)
    file.flush()


def write_parquet(file: IO[bytes], names: Sequence[str], rows: Iterable[PredictionRow]) -> None:
    """Write rows as Parquet, each page with its checksum; the column types depend on the names only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column_type(name: str) -> Any:  # noqa: ANN401 - pyarrow has no types
        if name in {"novelty", "similarity"} or name.startswith(("confidence", "p:")):
            return pa.float64()
        return pa.int64() if name == "rank" else pa.string()

    schema = pa.schema([(name, column_type(name)) for name in names])
    with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        batch: list[PredictionRow] = []
        for row in rows:
            batch.append(row)
            if len(batch) == PARQUET_BATCH:
                writer.write_table(_arrow_table(batch, schema))
                batch = []
        writer.write_table(_arrow_table(batch, schema))


def _arrow_table(rows: list[PredictionRow], schema: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    values = [[row[index] for row in rows] for index in range(len(schema))]
    return pa.table([pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema=schema)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a CSV, JSON Lines, or Parquet file, by column name."""
    match path.suffix.lower():
        case ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches():
                yield from batch.to_pylist()
        case ".jsonl":
            with path.open(encoding="utf8") as file:
                yield from map(json.loads, file)
        case _:
            with path.open(encoding="utf8", newline="") as file:
                yield from csv.DictReader(file)

"""The rows of predict: one for each picture, written so that an interrupted prediction loses nothing.

Rows go to a journal beside the output as they are made, a JSON array a line. When all are there, the journal
becomes the CSV, JSONL or Parquet file, which appears whole. Torch-free.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.files import atomic_write, check_new_file

Row = list[Any]
"""Values in the order of the columns: text, float, or None."""

SUFFIXES = (".csv", ".jsonl", ".parquet")
BATCH = 10_000
"""Rows turned at a time into the output's format."""


def columns(classes: Sequence[str], *, top: int, probabilities: bool) -> list[str]:
    """Names of the columns: path, label, confidence, status, error, and what `--top` and `--probabilities` add."""
    names = ["path", "label", "confidence", "status", "error"]
    for rank in range(2, min(top, len(classes)) + 1):
        names += [f"label_{rank}", f"confidence_{rank}"]
    return names + [f"p:{name}" for name in classes] if probabilities else names


def check_output(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse an output that can't be written before anything is computed.

    Raises:
        UsageError: an unknown suffix, a folder, or a file that exists already.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: expected a name ending in {', '.join(SUFFIXES)}, or - for standard output.")
    check_new_file("--out", out, replace=overwrite or resume)


def journal_path(out: Path) -> Path:
    """Where the rows are kept until all are there."""
    return out.with_name(f".{out.name}.partial")


class Journal:
    """Rows on their way to a file. A context manager.

    Args:
        out: The file that the rows are for.
        signature: All that decides what the rows are; a journal with another one is not gone on with.
        resume: Keep the rows of a journal that is there already, in `done`.

    Raises:
        ArtifactError: a journal with another signature is there, and `resume` is set.
        MachineError: another process is writing the same output.
    """

    def __init__(self, out: Path, signature: dict[str, Any], *, resume: bool) -> None:
        self._path = journal_path(out)
        self._out = out
        self.done = 0
        header = json.dumps(signature, sort_keys=True).encode() + b"\n"
        self._start = len(header)
        # Appending, whatever position the last read left.
        self._file = self._path.open("a+b")
        try:
            self._lock()
            if not resume:
                self._file.truncate(0)
            self._go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """A lock that ends with the process that holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MachineError(
                f"another tlcli is writing {self._out}. Wait for it, or choose another --out.", path=self._out
            ) from error

    def _go_on(self, header: bytes) -> None:
        """Count the whole rows, and cut off one that a kill left half-written."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):  # killed before the first line was whole
            self._file.truncate(0)
            self._file.write(header)
            self._file.flush()
            return
        if first != header:
            raise ArtifactError(
                f"{self._path} was begun with other inputs or options{_what_changed(first, header)}. Repeat the "
                "command as it was, or start again with --overwrite.",
                path=self._path,
            )
        end = self._start
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            self.done += 1
        self._file.truncate(end)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they survive the process."""
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()

    def rows(self) -> Iterator[Row]:
        """All rows so far."""
        self._file.seek(self._start)
        for line in self._file:
            yield json.loads(line)

    def finish(self, names: Sequence[str]) -> None:
        """Write the output, whole, and drop the journal."""
        self._file.flush()
        with atomic_write(self._out) as file:
            match self._out.suffix.lower():
                case ".parquet":
                    _write_parquet(file, names, self.rows())
                case ".jsonl":
                    for row in self.rows():
                        file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode() + b"\n")
                case _:
                    text = io.TextIOWrapper(file, "utf8", newline="")
                    write_csv(text, names, self.rows(), header=True)
                    text.detach()
        self._path.unlink()


def read_output(out: Path) -> Iterator[dict[str, Any]]:
    """The rows of a finished output, by column name."""
    match out.suffix.lower():
        case ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(out).iter_batches():
                yield from batch.to_pylist()
        case ".jsonl":
            with out.open(encoding="utf8") as file:
                yield from map(json.loads, file)
        case _:
            with out.open(encoding="utf8", newline="") as file:
                yield from csv.DictReader(file)


def write_csv(file: IO[str], names: Sequence[str], rows: Iterable[Row], *, header: bool) -> None:
    """Rows as CSV (RFC 4180 with plain newlines), flushed."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(names)
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # csv quotes a newline but not a bare carriage return, which readers take for one too.
        returns = any(isinstance(value, str) and "\r" in value for value in row)
        (quoting if returns else writer).writerow(row)
    file.flush()


def _write_parquet(file: IO[bytes], names: Sequence[str], rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = {name for name in names if name.startswith(("confidence", "p:"))}
    schema = pa.schema([(name, pa.float64() if name in number else pa.string()) for name in names])
    with pq.ParquetWriter(file, schema) as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                writer.write_table(_table(batch, schema))
                batch = []
        writer.write_table(_table(batch, schema))


def _table(rows: list[Row], schema: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    values = [[row[index] for row in rows] for index in range(len(schema))]
    return pa.table([pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema=schema)


def _what_changed(first: bytes, header: bytes) -> str:
    try:
        before, now = json.loads(first), json.loads(header)
        names = sorted(name for name in now if before.get(name) != now[name])
    except (ValueError, AttributeError):
        return ""
    return f" ({', '.join(names)})"

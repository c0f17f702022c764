"""The rows of predict: one for each image, written so that an interrupted prediction loses nothing.

Rows go to a journal beside the output as they are made, a JSON array a line behind its checksum. When all are there,
the journal becomes the CSV, JSONL or Parquet file, which appears whole. Torch-free.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.progress import Reporter, Silent
from tlcli.storage.files import check_new_file, check_outside
from tlcli.storage.locks import Held, locked
from tlcli.storage.publish import atomic_write, hidden_prefix, os_errors_name, remove_leftovers

PredictionRow = list[Any]
"""Values in the order of the columns: text, float, or None."""

FORMAT = 1
"""Version of the journal."""
CHECKSUM = 16
"""Hexadecimal digits of a row's checksum."""
SUFFIXES = (".csv", ".jsonl", ".parquet")
BATCH = 10_000
"""Rows turned at a time into the output's format."""


def columns(classes: Sequence[str], *, top: int, probabilities: bool) -> list[str]:
    """Names of the columns: path, label, confidence, status, error, and what `--top` and `--probabilities` add."""
    names = ["path", "label", "confidence", "status", "error"]
    for rank in range(2, min(top, len(classes)) + 1):
        names += [f"label_{rank}", f"confidence_{rank}"]
    return names + [f"p:{name}" for name in classes] if probabilities else names


def check_output(out: Path, run: Path, inputs: Iterable[str], *, overwrite: bool, resume: bool) -> None:
    """Refuse an output that can't be written before anything is computed.

    Raises:
        UsageError: an unknown suffix, a folder, a file that exists already or is an input, or one in the run.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: expected a name ending in {', '.join(SUFFIXES)}, or - for standard output.")
    check_outside("--out", out, run, "the run")
    check_new_file("--out", out, replace=overwrite or resume, inputs=[name.removeprefix("@") for name in inputs])


def journal_path(out: Path) -> Path:
    """Where the rows are kept until all are there."""
    return out.with_name(f".{out.name}.partial")


class Journal:
    """Rows on their way to a file. A context manager.

    A row's checksum covers its number and the journal's first line, so that a line that was damaged, or that another
    process put between on a file system without locks, is never taken for this row.

    Args:
        out: The file that the rows are for.
        signature: All that decides what the rows are; a journal with another one is not gone on with.
        resume: Keep the rows of a journal that is there already, in `done`.
        report: Told of damaged rows, and of a file system without locks.

    Raises:
        ArtifactError: a journal with another signature, or a damaged one, is there, and `resume` is set.
        MachineError: another process is writing the same output.
    """

    def __init__(self, out: Path, signature: dict[str, Any], *, resume: bool, report: Reporter | None = None) -> None:
        self._path = journal_path(out)
        self._out = out
        self._report = report or Silent()
        self.done = 0
        header = json.dumps({"format": FORMAT} | signature, sort_keys=True).encode()
        self._header = _line(header, b"")
        lock = out.with_name(f"{hidden_prefix(out)}lock")
        with os_errors_name(out), contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(locked(lock, self._report, remove=True))
            except Held as error:
                message = f"{error} is writing {out}. Wait for it, or choose another --out."
                raise MachineError(message, path=out) from error
            if held:
                remove_leftovers(out)
            # Appending, whatever position the last read left.
            self._file = stack.enter_context(self._path.open("a+b"))
            if not resume:
                self._file.truncate(0)
            self._go_on()
            self._rows = self.done
            self._open = stack.pop_all()

    def _go_on(self) -> None:
        """Count the good rows, and cut off what comes behind: a row that a kill left half-written, or damage."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):  # killed before the first line was whole
            self._file.truncate(0)
            self._file.write(self._header)
            self._file.flush()
            return
        if (found := _content(first, b"")) is None:
            raise ArtifactError(
                f"{self._path} is damaged (the checksum of its first line differs). Start again with --overwrite.",
                path=self._path,
            )
        if first != self._header:
            raise ArtifactError(
                f"{self._path} was begun with other inputs or options{_what_changed(found, self._header)}. Repeat the "
                "command as it was, or start again with --overwrite.",
                path=self._path,
            )
        end = len(first)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            if _content(line, self._place(self.done)) is None:
                self._report.warn(
                    f"{self._path} is damaged (the checksum of row {self.done + 1:,} differs); rows from there on are "
                    "made again."
                )
                break
            end += len(line)
            self.done += 1
        self._file.truncate(end)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with os_errors_name(self._out):
            self._open.close()

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Append rows; they survive the process."""
        places = map(self._place, range(self._rows, self._rows + len(rows)))
        with os_errors_name(self._out):
            self._file.write(
                b"".join(_line(json.dumps(row).encode(), place) for row, place in zip(rows, places, strict=True))
            )
            self._file.flush()
        self._rows += len(rows)

    def rows(self) -> Iterator[PredictionRow]:
        """All rows so far.

        Raises:
            ArtifactError: they are not what was written.
        """
        self._file.seek(len(self._header))
        for number in range(self._rows):
            text = _content(self._file.readline(), self._place(number))
            if text is None:
                raise ArtifactError(
                    f"{self._path} is damaged (the checksum of row {number + 1:,} differs), or another process writes "
                    "it too. Repeat the command with --resume, which keeps the good rows.",
                    path=self._path,
                )
            yield json.loads(text)

    def _place(self, number: int) -> bytes:
        return self._header + str(number).encode()

    def finish(self, names: Sequence[str]) -> None:
        """Write the output, whole, and drop the journal."""
        self._file.flush()
        with atomic_write(self._out) as file:
            match self._out.suffix.lower():
                case ".parquet":
                    write_parquet(file, names, self.rows())
                case ".jsonl":
                    for row in self.rows():
                        file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode() + b"\n")
                case _:
                    text = io.TextIOWrapper(file, "utf8", newline="")
                    write_csv(text, names, self.rows(), header=True)
                    text.detach()
        self._path.unlink()


def _line(text: bytes, place: bytes) -> bytes:
    """A line of the journal: the checksum of its text and its place, and the text."""
    return hashlib.sha256(place + text).hexdigest()[:CHECKSUM].encode() + b" " + text + b"\n"


def _content(line: bytes, place: bytes) -> bytes | None:
    """The text of a line that `_line` wrote for `place`; None where it is anything else."""
    text = line[CHECKSUM + 1 : -1]
    return text if line == _line(text, place) else None


def read_output(out: Path) -> Iterator[dict[str, Any]]:
    """The rows of a finished output, by column name."""
    match out.suffix.lower():
        case ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(out, page_checksum_verification=True).iter_batches():
                yield from batch.to_pylist()
        case ".jsonl":
            with out.open(encoding="utf8") as file:
                yield from map(json.loads, file)
        case _:
            with out.open(encoding="utf8", newline="") as file:
                yield from csv.DictReader(file)


def write_csv(file: IO[str], names: Sequence[str], rows: Iterable[PredictionRow], *, header: bool) -> None:
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


def write_parquet(file: IO[bytes], names: Sequence[str], rows: Iterable[PredictionRow]) -> None:
    """Rows as Parquet, each page with its checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = {name for name in names if name.startswith(("confidence", "p:"))}
    schema = pa.schema([(name, pa.float64() if name in number else pa.string()) for name in names])
    with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        batch: list[PredictionRow] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                writer.write_table(_table(batch, schema))
                batch = []
        writer.write_table(_table(batch, schema))


def _table(rows: list[PredictionRow], schema: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    values = [[row[index] for row in rows] for index in range(len(schema))]
    return pa.table([pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema=schema)


def _what_changed(first: bytes, header: bytes) -> str:
    try:
        before, now = json.loads(first), json.loads(header[CHECKSUM + 1 :])
        names = sorted(name for name in now if before.get(name) != now[name])
    except (ValueError, AttributeError):
        return ""
    return f" ({', '.join(names)})"

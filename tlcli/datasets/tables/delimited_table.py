"""Read tables with separated columns, as spreadsheets and people write them (CSV, TSV).

The separator is that of a first line such as `sep=;`, or else the one of comma, semicolon, tab, and bar that splits the
first line into most columns. Every row must then have as many values as there are columns.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator

from tlcli.datasets.image_files import has_image_suffix
from tlcli.datasets.tables.headers import is_image_header
from tlcli.datasets.tables.raw_table import RawTable, number_row
from tlcli.datasets.tables.text_encoding import decode_text
from tlcli.errors import DataError
from tlcli.storage.urls import Location

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""Separators and their names; the first of equals is used."""


def read_delimited(path: Location, content: bytes) -> RawTable:
    """Read a table with separated columns. All values are text.

    Raises:
        DataError: The encoding is unknown, there is no line with the names of the columns, or a row has too few or too
            many values or an unclosed quote.
    """
    text, encoding = decode_text(content, path)
    start, separator, comments = _find_header(text)
    rows = _Rows(path, text[start:], separator, first_line=text[:start].count("\n") + 1)
    records = rows.read()
    names = tuple(name.strip() for name in next(records, (0, []))[1])
    _check_header(path, names)
    values = [row for _, row in _checked(path, names, records)]
    columns = dict(zip(names, zip(*values, strict=True), strict=True)) if values else dict.fromkeys(names, ())
    notes = [f"separated by {SEPARATORS[separator]}s"] if separator != "," else []
    notes += [f"decoded as {encoding}"] if encoding else []
    notes += [f"{comments} lines with # skipped" if comments > 1 else "1 line with # skipped"] if comments else []
    return RawTable(
        path=path,
        names=names,
        texts=frozenset(names),
        column=columns.__getitem__,
        notes=tuple(notes),
        describe_row=rows.describe,
    )


class _Rows:
    """The rows of the text below a table's header."""

    def __init__(self, path: Location, text: str, separator: str, first_line: int) -> None:
        self._path = path
        self._text = text
        self._separator = separator
        self._first_line = first_line

    def read(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number and the values of each row that is not blank, the header included."""
        lines = io.StringIO(self._text, newline="")
        reader = csv.reader(lines, delimiter=self._separator, skipinitialspace=self._separator != "\t", strict=True)
        last = 0
        try:
            for row in reader:
                if reader.line_num > last + 1:
                    self._check_lines(row, self._first_line + last)
                if any(map(str.strip, row)):
                    yield self._first_line + last, row
                last = reader.line_num
        except csv.Error as error:
            line = self._first_line + last
            if "end of data" in str(error):
                problem = 'has an unclosed quote. Close it, or write quotes within a quoted value twice ("")'
            elif "expected after" in str(error):
                problem = (
                    "has text or spaces after a closing quote. Remove them, or write quotes within a quoted value "
                    'twice ("")'
                )
            else:
                problem = f"cannot be read: {error}. Correct it"
            raise DataError(
                f"{self._path}, line {line:,}: the row that starts here {problem}.", path=self._path
            ) from error

    def _check_lines(self, row: list[str], line: int) -> None:
        """Check that a value of several lines contains no further rows."""
        for value in row:
            cells = [line.split(self._separator) for line in value.splitlines()[1:]]
            has_image = any(len(line) >= len(row) > 1 and any(map(has_image_suffix, line)) for line in cells)
            if has_image or (cells and all(len(line) == len(row) > 1 for line in cells)):
                raise DataError(
                    f"{self._path}, line {line:,}: the row that starts here contains the rows below it, because of a "
                    'quote. Close the quote, or write quotes within a quoted value twice ("").',
                    path=self._path,
                )

    def describe(self, index: int) -> str:
        """See `RawTable.describe_row`."""
        for number, (line, _) in enumerate(self.read()):
            if number == index + 1:
                return f"{number_row(index)} (line {line:,})"
        return number_row(index)


def _find_header(text: str) -> tuple[int, str, int]:
    """Return the position of the header in the text, the separator, and the number of comment lines before it."""
    start, comments, separator = 0, 0, None
    for line in io.StringIO(text, newline=""):
        content = line.strip().strip('"')
        if start == 0 and len(content) == 5 and content.lower().startswith("sep=") and content[4] in SEPARATORS:
            separator = content[4]
        elif start == 0 and line.rstrip("\r\n").lower() == "sep=\t":
            separator = "\t"
        elif content.startswith("#"):
            comments += 1
        elif content:
            counts = {one: len(next(csv.reader([line], delimiter=one), [])) for one in SEPARATORS}
            return start, separator or max(counts, key=counts.__getitem__), comments
        start += len(line)
    return start, separator or ",", comments


def _check_header(path: Location, names: tuple[str, ...]) -> None:
    """Check that the first row has the names of columns, and is not a title or an image."""
    if len(names) == 1 and not is_image_header(names[0]) and not names[0].replace("-", "_").isidentifier():
        raise DataError(
            f"{path}: the first row, {names[0][:60]!r}, names only one column. Expected names separated by a comma, "
            "semicolon, tab, or bar. Remove titles above them, or replace other separators.",
            path=path,
        )
    image = next((name for name in names if has_image_suffix(name)), None)
    if image is not None:
        rest = iter(["label", *(f"column{number}" for number in range(3, len(names) + 1))])
        header = ",".join("path" if name == image else next(rest) for name in names)
        raise DataError(
            f"{path} has no header: its first row is an image, {image}. Add a first line with the names of the "
            f"columns: sed '1i {header}' {shlex.quote(str(path))} > with_header{path.suffix}",
            path=path,
        )


def _checked(
    path: Location, names: tuple[str, ...], records: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    """Check that each row has one value for each column."""
    for index, (line, row) in enumerate(records):
        if len(row) != len(names):
            raise DataError(
                f"{path}, {number_row(index)} (line {line:,}) has {len(row)} values; expected {len(names)}, for the "
                f"columns {', '.join(names)}. Correct the row; a value that contains the separator needs quotes.",
                path=path,
            )
        yield line, row

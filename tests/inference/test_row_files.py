"""Files of rows: all formats contain the same rows."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from tlcli.inference.row_files import write_csv, write_rows

NAMES = ["path", "label", "confidence", "status", "error", "label_2", "confidence_2", "p:cat", "p:dog"]
ROWS = [
    ["a.jpg", "cat", 0.1 + 0.2, "ok", None, "dog", 1 / 3, 2 / 3, 1e-9],
    ['new\nline, "quoted" \'n é🚗.jpg', "dog", 0.5, "review", None, "cat", 0.5, 0.5, 0.5],
    ["carriage\rreturn.jpg", "dog", 1.0, "ok", None, "cat", 0.0, 0.0, 1.0],
    ["broken.jpg", None, None, "failed", "truncated, sort of", None, None, None, None],
    ["\ttab ", "cat", 1.0, "ok", None, "dog", 0.0, 1.0, 0.0],
]


def write(out, rows):
    with out.open("wb") as file:
        write_rows(file, out.suffix, NAMES, rows)


def read(path):
    """Return rows as dictionaries of text, float, and None, for any format."""
    match path.suffix:
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".jsonl":
            return [json.loads(line) for line in path.read_bytes().splitlines()]
        case _:
            with path.open(newline="", encoding="utf8") as file:
                return [
                    {
                        name: None if value == "" else float(value) if name[:2] in {"co", "p:"} else value
                        for name, value in row.items()
                    }
                    for row in csv.DictReader(file)
                ]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_all_formats_contain_the_same_rows(tmp_path, form):
    out = tmp_path / f"out.{form}"
    write(out, ROWS)
    assert read(out) == [dict(zip(NAMES, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_without_rows(tmp_path, form):
    write(tmp_path / f"out.{form}", [])
    assert read(tmp_path / f"out.{form}") == []


def test_the_types_of_a_parquet_file_do_not_depend_on_the_rows(tmp_path):
    write(tmp_path / "one.parquet", ROWS)
    write(tmp_path / "two.parquet", [ROWS[3]])
    assert pq.read_schema(tmp_path / "one.parquet").equals(pq.read_schema(tmp_path / "two.parquet"))


def test_csv_can_be_written_in_parts():
    file = io.StringIO(newline="")
    write_csv(file, ["path", "label"], [["a", "cat"]], header=True)
    write_csv(file, ["path", "label"], [["b", None]], header=False)
    assert file.getvalue() == "path,label\na,cat\nb,\n"

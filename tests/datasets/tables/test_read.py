"""DATA as a table: CSV, JSON Lines, and Parquet give the same rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tlcli.datasets.labeled_image import LabeledImage
from tlcli.datasets.tables.read import read_table
from tlcli.errors import DataError
from tlcli.storage.files import portable_name

FORMATS = ["csv", "jsonl", "parquet"]


def write(path, records):
    """Write text records; a missing key is null."""
    names = list(dict.fromkeys(name for record in records for name in record))
    table = pa.table({name: pa.array([record.get(name) for record in records], pa.string()) for name in names})
    match path.suffix:
        case ".csv":
            pa.csv.write_csv(table, path)
        case ".jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case _:
            pq.write_table(table, path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("1.jpg", "2.jpg", "in/3.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("form", FORMATS)
def test_the_rows_of_a_table(folder, form):
    records = [
        {"path": "1.jpg", "label": "a", "split": "train", "group": "p"},
        {"path": "2.jpg", "label": "b", "split": "Val"},
        {"path": "in/3.jpg", "label": "a", "group": "q"},
        {"path": str(folder / "1.jpg"), "label": "a", "split": "test"},
    ]
    assert read_table(write(folder / f"data.{form}", records)) == [
        LabeledImage(path=str(folder / "1.jpg"), label="a", split="train", group="p"),
        LabeledImage(path=str(folder / "2.jpg"), label="b", split="validation"),
        LabeledImage(path=str(folder / "in/3.jpg"), label="a", split="train", group="q"),
        LabeledImage(path=str(folder / "1.jpg"), label="a", split="test"),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_without_splits(folder, form):
    rows = read_table(write(folder / f"data.{form}", [{"path": "1.jpg", "label": "a", "other": "x"}]))
    assert rows == [LabeledImage(path=str(folder / "1.jpg"), label="a")]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "text", ["007", "7", "NA", "null", "true", "1.0", "1e3", "2024-01-02", "2024-01-02T03:04:05", " x ", 'é, "🚗"\n;']
)
def test_labels_and_groups_are_always_text(folder, form, text):
    # The only value of its column, so a reader could infer another type.
    path = write(folder / f"data.{form}", [{"path": "1.jpg", "label": text, "group": f"{text}_"}])
    assert read_table(path) == [LabeledImage(path=str(folder / "1.jpg"), label=text, group=f"{text.lstrip()}_")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_labels_that_are_numbers_become_text(folder, form):
    path = folder / f"data.{form}"
    if form == "jsonl":
        path.write_text('{"path": "1.jpg", "label": 1}\n{"path": "2.jpg", "label": 10}\n')
    else:
        pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": [1, 10]}), path)
    assert [row.label for row in read_table(path)] == ["1", "10"]


def test_names_from_a_dictionary_column(folder):
    labels = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": labels}), folder / "data.parquet")
    assert [row.label for row in read_table(folder / "data.parquet")] == ["a", "b"]


@pytest.mark.parametrize("form", FORMATS)
def test_odd_file_names(folder, form):
    names = ["new\nline.jpg", 'quo"te,comma.jpg', "🚗 é.jpg", portable_name(str(folder / "caf\udce9.jpg"))]
    for name in [*names[:3], "caf\udce9.jpg"]:
        (folder / name).write_bytes(b"")
    rows = read_table(write(folder / f"data.{form}", [{"path": name, "label": "a"} for name in names]))
    assert [Path(row.path).name for row in rows] == [*names[:3], "caf\udce9.jpg"]


def test_a_csv_from_windows(folder):
    (folder / "data.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\n1.jpg,a\r\n2.jpg,b\r\n")
    assert [row.label for row in read_table(folder / "data.csv")] == ["a", "b"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"picture file": "1.jpg", "label": "a"}],
            r"lacks a column of images; it has picture file, label.* --image-column NAME",
        ),
        ([{"file": "1.jpg", "breed": "a"}], r"lacks a column of classes; it has file, breed.* --label-column NAME"),
        ([{"path": "1.jpg", "label": "a"}, {"path": "2.jpg", "label": ""}], r"row 2.*: the column label is empty"),
        ([{"path": "", "label": "a"}], r"row 1.*: the column path is empty"),
        (
            [{"path": "1.jpg", "label": "a", "split": "tset"}],
            r"row 1.*: the split is 'tset' in the column split; expected train",
        ),
        ([{"path": "1.jpg", "label": "a"}, {"path": "9.jpg", "label": "a"}], r"1 of the 2 paths .*9\.jpg"),
        ([{"path": "in", "label": "a"}], "1 of the 1 paths"),
    ],
)
def test_an_invalid_table(folder, form, records, message):
    path = write(folder / f"data.{form}", records)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", [b"\x00\xff\xfe" * 40, b"PAR1 and then nothing", b'{"path": "1.jpg", "lab'])
def test_a_file_with_the_wrong_suffix(folder, form, content):
    path = folder / f"data.{form}"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_table(path)


def test_a_csv_with_a_row_too_short(folder):
    (folder / "data.csv").write_text("path,label\n1.jpg,a\n2.jpg\n")
    with pytest.raises(DataError, match=r"row 2 \(line 3\) has 1 values; expected 2, for the columns path, label"):
        read_table(folder / "data.csv")


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "3", "null"])
def test_a_jsonl_line_that_is_not_an_object(folder, line):
    (folder / "data.jsonl").write_text(f'{{"path": "1.jpg", "label": "a"}}\n{line}\n')
    with pytest.raises(DataError):
        read_table(folder / "data.jsonl")


def test_an_image_in_an_inaccessible_folder_is_accepted(public_path, unprivileged):
    (public_path / "shut").mkdir()
    (public_path / "shut" / "a.jpg").write_bytes(b"")
    (public_path / "shut").chmod(0o744)
    table = write(public_path / "data.csv", [{"path": "shut/a.jpg", "label": "x"}])
    with unprivileged():
        assert read_table(table) == [LabeledImage(path=str(public_path / "shut/a.jpg"), label="x")]

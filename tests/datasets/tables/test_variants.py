"""Tables as people and programs write them are read correctly, or refused with the reason and the remedy."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written_tables import FILES, PLAIN, ROWS, rows

from tlcli.datasets.tables.read import read_image_column, read_table
from tlcli.errors import DataError, UsageError
from tlcli.settings import TableColumns


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolon.csv", PLAIN.replace(",", ";")),
        ("bars.csv", PLAIN.replace(",", " | ")),
        ("tabs.TSV", PLAIN.replace(",", "\t")),
        ("excel.csv", "sep=;\r\n" + PLAIN.replace(",", ";")),
        ("excel-tab.csv", "\ufeffsep=\t\n" + PLAIN.replace(",", "\t")),
        ("mac.csv", PLAIN.replace("\n", "\r")),
        ("utf16.csv", PLAIN.encode("utf-16")),
        ("utf16-no-mark.csv", PLAIN.encode("utf-16-be")),
        ("utf16.jsonl", "".join(json.dumps({"path": p, "label": y}) + "\r\n" for p, y in ROWS).encode("utf-16")),
        ("aligned.csv", PLAIN.replace(",", "  ,  ").replace("label", '"label"')),
        ("dots.csv", PLAIN.replace("\na", "\n./a")),
        ("backslashes.csv", PLAIN.replace("/", "\\")),
        (
            "index.csv",
            "".join(f"{number},{line}\n" for number, line in enumerate(PLAIN.splitlines())).replace("0,", ","),
        ),
        ("texts.csv", "path,label,text\n" + "".join(f'{path},{label},"a,\nb, c, d,e\nf"\n' for path, label in ROWS)),
        ("blank-lines.csv", "# by hand\n\n" + PLAIN + "\n,\n\n"),
        ("headers.csv", PLAIN.replace("path,label", " File Name , CLASS")),
        ("array.json", json.dumps([{"image": path, "category": label} for path, label in ROWS], indent=1)),
        (
            "bytes.parquet",
            {"path": [path.encode() for path in FILES], "label": pa.array(["x", "y", "x"]).dictionary_encode()},
        ),
        (
            "views.parquet",
            {"path": pa.array(FILES, pa.large_string()), "label": pa.array(["x", "y", "x"], pa.string_view())},
        ),
    ],
)
def test_dialects_give_the_same_rows(folder, name, content):
    assert [(path, label.strip()) for path, label in rows(folder, name, content)] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no-header.csv", PLAIN.partition("\n")[2], r"no header: .* a\.jpg.* sed '1i path,label' "),
        ("title.csv", "My data\n" + PLAIN, "names only one column"),
        ("blanks.csv", PLAIN.replace(",", " "), "separated by a comma, semicolon, tab, or bar"),
        ("carets.csv", PLAIN.replace(",", "^"), "names only one column"),
        ("short.csv", PLAIN.replace("b.jpg,y", "b.jpg"), r"row 2 \(line 3\) has 1 values; expected 2"),
        ("long.csv", PLAIN.replace("b.jpg,y", "b.jpg,y,z"), r"row 2 \(line 3\) has 3 values; expected 2"),
        ("open.csv", PLAIN.replace("b.jpg", '"b.jpg'), r"line 3: .* unclosed quote"),
        ("open-twice.csv", PLAIN.replace(",x", ',"x', 1)[:-2] + 'x"\n', r"line 2: .* contains the rows below it"),
        ("open-ids.csv", "id,label\n1,\"x\n2,y\n3,y\"\n", r"line 2: .* contains the rows below it"),
        ("after.csv", PLAIN.replace("a.jpg", '"a.jpg" '), r"line 2: .* after a closing quote"),
        ("twice.csv", "path,label,Label\na.jpg,x,x\n", "two columns called 'label' and 'Label'"),
        ("twice.csv", "path,label,a,a\na.jpg,x,1,2\n", "two columns called 'a' and 'a'"),
        ("russian.csv", PLAIN.replace("x", "кот").encode("cp1251"), r"not UTF-8 at byte .* iconv -f ENCODING -t UTF-8"),
        ("japanese.csv", PLAIN.replace("x", "ネコ").encode("shift-jis"), "iconv"),
        ("korean.csv", PLAIN.replace("x", "집").encode("euc-kr"), "iconv"),
        ("keys.jsonl", '{"path": "a.jpg", "label": "x", "label": "y"}\n', "the key 'label' occurs twice"),
        ("columns.json", json.dumps({"path": {"0": "a.jpg"}, "label": {"0": "x"}}), r'orient="records", lines=True'),
        ("pretty.json", json.dumps({"images": [], "annotations": []}, indent=1), "over several lines, with images"),
        ("hf.parquet", {"image": [{"bytes": b"", "path": "a.jpg"}], "label": [1]}, r'str\(row\["label"\]\)'),
        ("raw.parquet", {"image": [b"\xff\xd8"], "class": ["x"]}, r'str\(row\["class"\]\)'),
    ],
)  # fmt: skip
def test_damaged_tables_are_refused_with_the_remedy(folder, name, content, message):
    with pytest.raises(DataError, match=message):
        rows(folder, name, content)


def test_western_text_that_is_not_utf8(folder):
    notes = []
    found = rows(folder, "t.csv", PLAIN.replace(",x", ",Größe").replace(",y", ",créée").encode("latin1"), notes)
    assert [label for _, label in found] == ["Größe", "créée", "Größe"]
    assert notes == ["decoded as Windows-1252 (Latin-1), because it is not UTF-8"]


def test_the_command_that_writes_images_to_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pq.write_table(pa.table({"image": [{"bytes": b"1", "path": None}], "Class": ["it's"]}), "t.parquet")
    with pytest.raises(DataError, match="pass the folder t instead") as caught:
        read_table(Path("t.parquet"))
    _, _, command = caught.value.message.partition("python ")
    subprocess.run([sys.executable, *shlex.split(command)], check=True)
    assert Path("t/it's/0.jpg").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "image,file_name",
            "2 columns that may hold the images: image, file_name. Choose one with --image-column image",
        ),
        ("path,breed", "lacks a column of classes; it has path, breed. Name the column with --label-column NAME"),
        ("x,label", "lacks a column of images"),
    ],
)
def test_headers_that_are_not_recognized(folder, header, message):
    with pytest.raises(DataError, match=message):
        rows(folder, "t.csv", PLAIN.replace("path,label", header))
    assert rows(folder, "t.csv", PLAIN.replace("path,label", header), image_column=header.split(",")[0],
                label_column=header.split(",")[1]) == ROWS  # fmt: skip


def test_the_image_column_alone(folder):
    (folder / "t.csv").write_text("Image;other\na.jpg;\nmissing.jpg;\nin\\c.jpg;\n")
    found = read_image_column(folder / "t.csv", TableColumns())
    assert [path.removeprefix(f"{folder}/") for path in found] == ["a.jpg", "missing.jpg", "in/c.jpg"]
    (folder / "list.csv").write_text("File Name\na.jpg\n")
    assert read_image_column(folder / "list.csv", TableColumns()) == [f"{folder}/a.jpg"]
    with pytest.raises(UsageError, match="--image-column file"):
        read_image_column(folder / "t.csv", TableColumns(image_column="file"))

"""Tables as people and programs write them are read correctly, or refused with the reason and the remedy."""

import json
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlcli.datasets.tables.read import read_image_column, read_table
from tlcli.errors import DataError, UsageError
from tlcli.settings import TableColumns

FILES = ("a.jpg", "b.jpg", "in/c.jpg")
PLAIN = "path,label\na.jpg,x\nb.jpg,y\nin/c.jpg,x\n"
ROWS = [("a.jpg", "x"), ("b.jpg", "y"), ("in/c.jpg", "x")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def rows(folder, name, content, notes=None, **columns):
    """Write a table, and return the paths relative to its folder with the labels."""
    table = folder / name
    if isinstance(content, dict):
        pq.write_table(pa.table(content), table)
    else:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_table(table, TableColumns(**columns), notes)
    return [(str(image.path).removeprefix(f"{folder}/"), image.label) for image in found]


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


def labels(folder, *values):
    table = "".join(
        json.dumps({"path": path, "label": value}) + "\n" for path, value in zip(FILES, values, strict=False)
    )
    return [label for _, label in rows(folder, "t.jsonl", table)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "7", "NA"], ["007", "7", "NA"]),
        ([True, False], ["True", "False"]),
        ([1.0, 2.0], ["1.0", "2.0"]),
        (["cat", 3], ["cat", "3"]),
        (["[x]", "(none)"], ["[x]", "(none)"]),
    ],
)
def test_labels_that_are_accepted(folder, values, expected):
    assert labels(folder, *values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["x", None, None], "row 2: the column label is empty .*, as in 2 rows"),
        (["x", "  "], "row 2: the column label is empty"),
        (["x", "nan"], "row 2: the column label is empty"),
        ([1.0, float("nan")], "row 2: the column label is empty"),
        (["x", ["y"]], r"row 2: the column label holds a list, \['y'\]"),
        ([{"name": "x"}], "row 1: the column label holds an object"),
        (["x", "['y']"], "row 2: the column label holds a list"),
        ([1, 1.0], "mixes types"),
        ([True, 2], "mixes types"),
        (["1", 1], "'1' in row 1 and 1 in row 2, which may mean the same"),
        (["1", "2", "1.0"], "'1' in row 1 and '1.0' in row 3"),
        (["true", "1"], "'true' in row 1 and '1' in row 2"),
    ],
)
def test_labels_that_are_refused(folder, values, message):
    with pytest.raises(DataError, match=message):
        labels(folder, *values)


@pytest.mark.parametrize(
    ("label", "expected", "message"),
    [([0, 1], ["cat", "dog"], None), ([0, -1], None, "row 2: the column label is empty")],
)
def test_class_names_of_hugging_face(folder, label, expected, message):
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = pa.table({"image": [{"bytes": None, "path": path} for path in FILES[:2]], "label": label})
    table = table.cast(
        table.schema.set(0, pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "t.parquet")
    if message:
        with pytest.raises(DataError, match=message):
            read_table(folder / "t.parquet")
    else:
        assert [image.label for image in read_table(folder / "t.parquet")] == expected


def test_the_command_that_writes_images_to_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pq.write_table(pa.table({"image": [{"bytes": b"1", "path": None}], "Class": ["it's"]}), "t.parquet")
    with pytest.raises(DataError, match="pass the folder t instead") as caught:
        read_table(Path("t.parquet"))
    _, _, command = caught.value.message.partition("python ")
    subprocess.run([sys.executable, *shlex.split(command)], check=True)
    assert Path("t/it's/0.jpg").read_bytes() == b"1"


def column(folder, header, values, **columns):
    lines = "".join(f"{path},x,{value}\n" for path, value in zip(FILES, values, strict=True))
    (folder / "t.csv").write_text(f"path,label,{header}\n{lines}")
    found = read_table(folder / "t.csv", TableColumns(**columns))
    return [image.split for image in found], [image.group for image in found]


NONE = [None] * 3


@pytest.mark.parametrize(
    ("header", "values", "splits"),
    [
        ("Split", ["TRAIN", " valid ", "Testing"], ["train", "validation", "test"]),
        (" split", ["training", "dev", ""], ["train", "validation", "train"]),
        ("Data-Set", ["train_set", "Test set", "train"], ["train", "test", "train"]),
        ("stage", ["train", "holdout", "eval"], ["train", "validation", "test"]),
        ("is_valid", ["False", "true", "0"], ["train", "validation", "train"]),
        ("isTest", ["0.0", "1.0", "no"], ["train", "test", "train"]),
        ("split", ["", "nan", ""], NONE),
        ("stage", ["train", "train", "train"], NONE),
        ("color", ["red", "test", "train"], NONE),
    ],
)
def test_splits(folder, header, values, splits):
    assert column(folder, header, values) == (splits, NONE)


@pytest.mark.parametrize(
    ("header", "values", "groups"),
    [
        ("GROUP", ["p", "p ", "q"], ["p", "p", "q"]),
        ("Patient ID", ["1", "nan", ""], ["1", None, None]),
        ("group", ["NA", "None", "<NA>"], NONE),
    ],
)
def test_groups(folder, header, values, groups):
    assert column(folder, header, values) == (NONE, groups)


@pytest.mark.parametrize(("column", "what"), [("group", "a list"), ("split", "a list")])
def test_lists_are_no_groups_and_splits(folder, column, what):
    (folder / "t.jsonl").write_text(json.dumps({"path": "a.jpg", "label": "x", column: ["p"]}))
    with pytest.raises(DataError, match=f"row 1: the column {column} holds {what}"):
        read_table(folder / "t.jsonl")


@pytest.mark.parametrize("value", [float("nan"), None])
def test_missing_groups_are_no_group(folder, value):
    pq.write_table(pa.table({"path": FILES, "label": ["x"] * 3, "group": [1.0, value, value]}), folder / "t.parquet")
    assert [image.group for image in read_table(folder / "t.parquet")] == ["1.0", None, None]


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        ("split", ["train", "tset", ""], r"row 2 \(line 3\): the split is 'tset'.*--split-column none"),
        ("is_train", ["1", "0", "1"], "false may stand for validation or test"),
        ("Usage", ["Training", "Public", "Private"], "the split is 'Public'"),
        ("fold", ["1", "2", "3"], "--split-column fold .*--group-column fold .*--split-column none"),
        ("split_1", ["1", "2", "3"], "may hold splits or groups"),
        ("valid", ["true", "false", "true"], "may hold splits or groups"),
        ("age_group", ["1", "2", "3"], "may hold splits or groups"),
        ("group", ["train", "train", "test"], "may hold splits or groups"),
        ("group", ["1", "1.0", "2"], "may mean the same"),
        ("split,is_valid", ["train,0", "train,1", "test,0"], "2 columns that may hold the splits: split, is_valid"),
    ],
)
def test_columns_that_look_like_splits_or_groups_are_never_ignored(folder, header, values, message):
    with pytest.raises(DataError, match=message):
        column(folder, header, values)
    assert column(folder, header, values, split_column="none", group_column="none") == (NONE, NONE)


def test_columns_are_chosen_by_options(folder):
    chosen = {"split_column": "FOLD", "group_column": "who"}
    assert column(folder, "fold,who", ["train,p", "test,q", "val,p"], **chosen) == (
        ["train", "test", "validation"],
        ["p", "q", "p"],
    )
    with pytest.raises(UsageError, match=r"--group-column whom: .* has no such column; it has path, label, fold, who"):
        column(folder, "fold,who", ["a,b"] * 3, group_column="whom")
    with pytest.raises(UsageError, match=r"the column fold .* is used twice"):
        column(folder, "fold,who", ["a,b"] * 3, group_column="fold", split_column="fold")


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


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_paths_in_either_unicode_form(folder, form):
    other = "NFD" if form == "NFC" else "NFC"
    real = unicodedata.normalize(form, "Größe/ü.jpg")
    (folder / real).parent.mkdir()
    (folder / real).write_bytes(b"")
    written = unicodedata.normalize(other, "Größe/") + unicodedata.normalize(form, "ü.jpg")
    assert rows(folder, "t.csv", f"path,label\n{written},x\n") == [(real, "x")]


@pytest.mark.parametrize("names", [["b", "c"], ["b.jpg", "c.jpg"]])
def test_images_are_found_by_their_names(folder, names):
    (folder / "b.jpg").rename(folder / "in" / "b.jpg")
    notes = []
    table = f"id,label\n{names[0]},x\n{names[1]},y\n"
    assert rows(folder, "t.csv", table, notes) == [("in/b.jpg", "x"), ("in/c.jpg", "y")]
    assert notes == ["columns: images from id, classes from label", f"images found by name in {folder}/in"]


def test_a_path_without_suffix_is_that_of_the_only_image_of_this_stem(folder):
    assert rows(folder, "t.csv", "path,label\nin/c,x\na.jpg,y\n") == [("in/c.jpg", "x"), ("a.jpg", "y")]
    (folder / "in" / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of the 2 paths in it do not exist, such as in/c"):
        rows(folder, "t.csv", "path,label\nin/c,x\na.jpg,y\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (r"C:\\data\\in\\c.jpg".replace("\\\\", "\\"), r"Remove 'C:\\\\data\\\\' at their start: in/c\.jpg exists"),
        ("/kaggle/input/in/c.jpg", "Remove '/kaggle/input/' at their start"),
        ("IN/C.JPG", r"in/c\.jpg exists: correct the case"),
        ("c.jpg", r"in/c\.jpg exists: write the paths with their folders and suffixes"),
        ("'a.jpg'", "Remove the single quotes"),
        ("nowhere.jpg", "Correct the paths, or move the table"),
    ],
)
def test_paths_that_do_not_exist(folder, path, message):
    with pytest.raises(DataError, match=message):
        rows(folder, "t.csv", f"path,label\n{path},x\na.jpg,y\n")


def test_the_image_column_alone(folder):
    (folder / "t.csv").write_text("Image;other\na.jpg;\nmissing.jpg;\nin\\c.jpg;\n")
    found = read_image_column(folder / "t.csv", TableColumns())
    assert [path.removeprefix(f"{folder}/") for path in found] == ["a.jpg", "missing.jpg", "in/c.jpg"]
    (folder / "list.csv").write_text("File Name\na.jpg\n")
    assert read_image_column(folder / "list.csv", TableColumns()) == [f"{folder}/a.jpg"]
    with pytest.raises(UsageError, match="--image-column file"):
        read_image_column(folder / "t.csv", TableColumns(image_column="file"))

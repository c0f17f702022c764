"""Columns of splits and groups are recognized, and never ignored."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written_tables import FILES

from tlcli.datasets.tables.read import read_table
from tlcli.errors import DataError, UsageError
from tlcli.settings import TableColumns


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

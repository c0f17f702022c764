"""The folder that appears whole or not at all."""

import os

import pytest

from tlcli.errors import UsageError
from tlcli.inspection.folder import inspect_folder, sheet_name


def test_a_failure_leaves_no_half_made_folder(tmp_path):
    def fail():
        with inspect_folder(tmp_path / "out").filled(replace=False) as folder:
            (folder / "units.jsonl").write_text("half")
            assert not (tmp_path / "out").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "out"
    for text in ("first", "second"):
        with inspect_folder(out).filled(replace=True) as folder:
            (folder / "units.jsonl").write_text(text)
            (folder / sheet_name(3, "blocks.1/x y")).write_text(text)
    assert (out / "units.jsonl").read_text() == "second"
    assert sorted(os.listdir(out)) == ["layer-03-blocks.1_x_y.png", "units.jsonl"]  # noqa: PTH208
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    def write():
        with inspect_folder(tmp_path / "out").filled(replace=True) as folder:
            (folder / "units.jsonl").write_text("new")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match=r"mine\.txt"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        inspect_folder(tmp_path / "out").check(replace=True)

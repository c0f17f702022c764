"""Outputs of rows are checked before anything is computed."""

from pathlib import Path

import pytest

from tlcli.errors import UsageError
from tlcli.inference.output import check_output


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("out.txt", {}, r"expected a name ending in .csv"),
        ("out", {}, r"expected a name ending in .csv"),
        ("folder.csv", {"overwrite": True}, "is a folder"),
        ("there.csv", {}, "exists.*--overwrite"),
        ("nowhere/out.csv", {}, "does not exist"),
    ],
)
def test_invalid_outputs_are_refused(tmp_path, name, flags, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UsageError, match=message):
        check_output(tmp_path / name, tmp_path / "run", (), **{"overwrite": False, "resume": False} | flags)


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
def test_outputs_that_may_be_replaced_are_accepted(tmp_path, flag):
    (tmp_path / "there.CSV").write_text("mine")
    check_output(tmp_path / "there.CSV", tmp_path / "run", (), **{"overwrite": False, "resume": False} | {flag: True})
    check_output(Path("new.csv"), Path("run"), (), overwrite=False, resume=False)

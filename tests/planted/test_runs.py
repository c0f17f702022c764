"""Manipulated runs with valid checksums are refused, or the manipulated value is never used."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
from hostile_files import torch_file

from tlcli.cli.main import run
from tlcli.errors import ArtifactError
from tlcli.runs.run import load_run
from tlcli.storage.files import sealed, sha256_file


def manipulated(made, tmp_path, change):
    """Copy the run and change its `run.json`, with a valid checksum."""
    folder = tmp_path / "manipulated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "run", folder)
    info = json.loads((folder / "run.json").read_text())
    del info["sha256"]
    change(info, folder)
    (folder / "run.json").write_text(json.dumps(sealed(info)))
    return folder


ODD = (None, "x", -1, 0, 1e300, float("nan"), float("inf"), True, [], {}, ["x"], {"x": 1}, [[[]]], 2**70)
DEEP = ("preprocessing", "freeze", "head", "images", "files", "validation", "settings")
NEEDED = {"format", "classes", "preprocessing", "files", "temperature", "log_prior", "freeze", "precision", "backbone"}


@pytest.mark.slow
def test_invalid_values_in_run_json_are_refused_or_ignored(made, photos, tmp_path, capsys):
    """Remove or replace each key of run.json and its nested objects: there must never be a traceback."""
    whole = json.loads((made / "run" / "run.json").read_text())
    keys = [(key,) for key in whole if key != "sha256"]
    keys += [(key, inner) for key in DEEP for inner in whole[key]]
    folder, refused = manipulated(made, tmp_path, lambda info, folder: None), set()
    for key_path in keys:
        predicted = False
        for value in (..., *ODD):
            info = {key: copy.deepcopy(whole[key]) for key in whole if key != "sha256"}
            at = info[key_path[0]] if len(key_path) > 1 else info
            if value is ...:
                del at[key_path[-1]]
            else:
                at[key_path[-1]] = copy.deepcopy(value)
            (folder / "run.json").write_text(json.dumps(sealed(info)))
            try:
                load_run(folder)
            except ArtifactError as error:
                refused.add(key_path[0] if str(folder) in error.message else error.message)
                continue
            if (
                not predicted or key_path[0] in NEEDED
            ):  # keys that are never read may have any value; testing one is enough
                command = ["predict", str(folder), str(photos / "disc" / "00.jpg"), "--workers", "1", "--quiet"]
                assert run(command) == 0, (key_path, value)
                assert "disc/00.jpg" in capsys.readouterr().out
                predicted = True
    assert refused >= NEEDED


def test_a_run_with_files_outside_its_folder_is_refused(made, tmp_path, capsys):
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")

    def change(info, folder):
        info["files"]["../outside.txt"] = sha256_file(outside)

    assert run(["predict", str(manipulated(made, tmp_path, change)), str(outside), "--quiet"]) == 4
    assert "the value of files is invalid" in capsys.readouterr().err


def reconfigured(made, tmp_path, **changes):
    """Copy the run and change its `config.json`."""

    def change(info, folder):
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        info["files"]["config.json"] = sha256_file(folder / "config.json")

    return manipulated(made, tmp_path, change)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"checkpoint_path": "hostile.pth"}},
        {"model_args": {"pretrained": True}},
        {"model_args": {"pretrained_cfg_overlay": {"file": "hostile.pth"}}},
        {"architecture": "hf-hub:somebody/something"},
        {"architecture": "local-dir:/tmp"},
        {"architecture": ["resnet18"]},
        {"architecture": "../../resnet18"},
        {"model_args": {"no_such_argument": 1}, "architecture": "resnet18"},
        {"architecture": "resnet18"},
        {"num_classes": 2**40, "pretrained_cfg": {"num_classes": "many"}},
    ],
)
def test_a_config_that_loads_other_files_or_does_not_match_is_refused(
    changes, made, photos, tmp_path, sentinel, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch_file(tmp_path / "hostile.pth", sentinel)
    folder = reconfigured(made, tmp_path, **changes)
    assert run(["predict", str(folder), str(photos), "--engine", "torch", "--quiet"]) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("artifact: ")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"[]", b"1e999999"])
def test_malformed_json_is_refused(content, made, photos, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    (folder / "run.json").write_bytes(content)
    assert run(["predict", str(folder), str(photos), "--quiet"]) == 4
    assert "run.json" in capsys.readouterr().err


def test_contents_of_files_named_in_a_table_are_not_shown(made, tmp_path, capsys):
    secret = tmp_path / "secret.txt"
    secret.write_text("the launch code is 0000")
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "table.csv"
    table.write_text("path,label\n../secret.txt,disc\n../../../../../../../etc/passwd,disc\n")
    assert run(["evaluate", str(made / "run"), str(table), "--json"]) == 4
    output = capsys.readouterr()
    assert "launch" not in output.out + output.err
    assert "root:" not in output.out + output.err

"""The command check: its output, its options, and its errors."""

import csv
import json
import os
import shutil

import pytest
from checked_patterns import CLASSES, checked, pattern, save
from PIL import ImageEnhance

from tlcli.cli.main import run
from tlcli.commands.check import check
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.settings import CacheSettings, CheckSettings, ComputeSettings, NetworkSettings


@pytest.mark.slow
def test_exposures_of_one_motif_suggest_a_group_by(tmp_path, cache, capsys):
    for name in CLASSES:
        for seed in range(4):
            image = pattern(name, seed)
            for number, light in enumerate((1, 0.8)):
                save(ImageEnhance.Brightness(image).enhance(light), tmp_path / name / f"{name}{seed}_exp{number}.jpg")
    assert run(["check", str(tmp_path), "--size", "64", "--cache", str(cache)]) == 3
    pattern_of_names = r"([^/]+)[-_ .][^-_ ./]+\.[^./]+$"
    assert f"--group-by '{pattern_of_names}'" in " ".join(capsys.readouterr().err.split())
    result = checked(tmp_path, cache, group_by=pattern_of_names)
    assert result.group_by is None
    assert len({sample.group for sample in result.dataset.samples}) == 12


def test_the_csv_file_has_a_row_for_each_finding(data, cache, tmp_path):
    odd = data / "train" / "dots" / os.fsdecode(b"od\xff,\n[red].jpg")
    shutil.copy(data / "train/dots/00.jpg", odd)
    out = tmp_path / "findings.csv"
    out.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        checked(data, cache, out=out)
    assert out.read_text() == "precious"
    result = checked(data, cache, out=out, overwrite=True)
    with out.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == "kind path class split detail other_path other_class score".split()
    (row,) = rows
    assert (row["kind"], row["class"], row["split"], row["score"]) == ("duplicate", "dots", "train", "1.0")
    names = {row["path"], row["other_path"]}
    assert f"{data}/train/dots/00.jpg" in names
    assert any(name.startswith("file:///") and name.endswith("od%FF%2C%0A%5Bred%5D.jpg") for name in names)
    assert len(result.findings) == 1
    with pytest.raises(DataError, match="does not exist"):
        checked(tmp_path / "nowhere", cache)


def test_the_command_with_json(data, cache, capfd):
    arguments = ["check", str(data), "--size", "64", "--cache", str(cache)]
    shutil.copy(data / "train/dots/00.jpg", data / "test/dots/leak.jpg")
    assert run([*arguments, "--json"]) == 3
    some = json.loads(capfd.readouterr().out)
    assert some.keys() >= {"images", "unreadable", "duplicates", "leaks", "suspects", "findings"}
    assert [some[key] for key in ("images", "unreadable", "duplicates", "leaks", "suspects")] == [55, 0, 1, 1, 0]
    assert [finding["kind"] for finding in some["findings"]] == ["leak", "duplicate"]
    assert some["findings"][0]["path"] == f"{data}/test/dots/leak.jpg"


@pytest.mark.slow
def test_the_command_without_json(data, cache, capfd):
    arguments = ["check", str(data), "--size", "64", "--cache", str(cache)]
    assert run(arguments) == 0
    output = capfd.readouterr()
    assert output.out == ""
    assert "No findings in 54 images" in output.err
    assert f"tlcli finetune {data}" in output.err
    for number in range(7):
        hostile = data / "train" / "dots" / os.fsdecode(b"\x1b[31m[bold]\xff%d.jpg" % number)
        shutil.copy(data / "train/dots/00.jpg", hostile)
    assert run(arguments) == 3
    output = capfd.readouterr()
    assert "Duplicates 7" in output.err
    assert "... and 2 more" in output.err
    assert "%5Bbold%5D%FF" in output.err
    assert "\x1b" not in output.err
    assert f"tlcli check {data} --out findings.csv" in output.err
    assert run([*arguments, "--quiet"]) == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--overwrite"], "--overwrite has no effect"), (["--out", "x.txt"], ".csv"), (["--group-by", "("], "--group-by")],
)
def test_usage_errors(clean, arguments, message, capfd):
    assert run(["check", str(clean), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_a_missing_device_fails_before_weights_are_loaded(clean, cache):
    settings = CheckSettings(
        data=clean,
        network=NetworkSettings(weights="missing.safetensors"),
        cache=CacheSettings(directory=cache),
        compute=ComputeSettings(device="cuda:99"),
    )
    with pytest.raises(MachineError, match="--device cuda:99"):
        check(settings)

"""--corrections of every command that reads labels."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlcli.cli.main import run
from tlcli.commands.augment import augment
from tlcli.commands.cache_features import cache_features
from tlcli.commands.check import check
from tlcli.commands.compare import compare
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.commands.inspect import inspect
from tlcli.errors import ArtifactError, UsageError
from tlcli.settings import (
    AugmentSettings,
    CacheFeaturesSettings,
    CacheSettings,
    CheckSettings,
    CompareSettings,
    EvaluateSettings,
    FinetuneSettings,
    InspectSettings,
    NetworkSettings,
)


def write_table(path, rows):
    """Write corrections. A row is an image's file, its old label, and its new one."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "digest", "old", "new"])
        for image, old, new in rows:
            writer.writerow([image, hashlib.sha256(image.read_bytes()).hexdigest(), old, new])
    return path


@pytest.fixture
def mislabeled(photos, tmp_path):
    """The photos, two of which are in a wrong class and one of which is in no class, and their corrections."""
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "disc" / "00.jpg").rename(data / "square" / "moved.jpg")
    (data / "disc" / "01.jpg").rename(data / "stripes" / "moved.jpg")
    rows = [(data / "square" / "moved.jpg", "square", "disc"), (data / "stripes" / "moved.jpg", "stripes", "disc")]
    file = write_table(tmp_path / "corrections.csv", [*rows, (data / "disc" / "02.jpg", "disc", "")])
    return data, file


def finetune_settings(data, file, out, cache):
    return FinetuneSettings(
        data=data,
        corrections=file,
        out=out,
        network=NetworkSettings(size=64),
        cache=CacheSettings(directory=cache),
    )


def test_finetune_trains_on_the_corrected_labels(mislabeled, trained, tmp_path, report):
    data, file = mislabeled
    settings = finetune_settings(data, file, tmp_path / "run", trained.cache)
    info = finetune(settings, report)
    found = {"file": str(file), "corrected": 2, "left_out": 1, "already_correct": 0, "unmatched": 0}
    assert info["corrections"] == found
    assert json.loads((tmp_path / "run" / "run.json").read_text())["corrections"] == found
    assert f"Labels    2 corrected, 1 image left out ({file})" in report.notes
    assert info["settings"]["corrections"] == str(file)
    assert info["images"]["train"] == 44
    assert [info["validation"]["per_class"][name]["images"] for name in ("disc", "square", "stripes")] == [14, 15, 15]
    assert len(pq.read_table(tmp_path / "run" / "splits.parquet")) == 44
    result = evaluate(EvaluateSettings(run=tmp_path / "run", data=data, corrections=file))
    assert result["images"] == 44
    assert result["corrections"] == found
    assert [sum(row) for row in result["confusion"]] == [14, 15, 15]
    plain = evaluate(EvaluateSettings(run=tmp_path / "run", data=data))
    assert [sum(row) for row in plain["confusion"]] == [13, 16, 16]
    assert plain["corrections"] is None


def test_a_finished_run_is_not_resumed_with_other_corrections(mislabeled, trained, tmp_path):
    data, file = mislabeled
    settings = finetune_settings(data, file, tmp_path / "run", trained.cache)
    first = finetune(settings)
    again = finetune(replace(settings, resume=True))
    assert again["was_finished"]
    assert again["corrections"] == first["corrections"]
    with pytest.raises(ArtifactError, match=r"corrections was '.*corrections\.csv' and is None"):
        finetune(replace(settings, resume=True, corrections=None))


def test_classes_of_a_run_come_from_the_corrections(photos, trained, tmp_path):
    rows = [(image, "disc", "round") for image in sorted((photos / "disc").iterdir())]
    file = write_table(tmp_path / "renamed.csv", rows)
    info = finetune(finetune_settings(photos, file, tmp_path / "run", trained.cache))
    assert info["classes"] == ["round", "square", "stripes"]
    assert info["images"]["computed"] == 0  # features do not depend on labels
    assert run(["export", str(tmp_path / "run"), "--format", "torch", "--out", str(tmp_path / "exported.pt2")]) == 0


def test_check_sees_the_corrected_labels(photos, trained, tmp_path, report):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    copy = shutil.copy(data / "disc" / "00.jpg", data / "square" / "copy.jpg")
    settings = CheckSettings(data=data, network=NetworkSettings(size=64), cache=CacheSettings(directory=trained.cache))
    assert [finding.path for finding in check(settings).of_kind("conflict")]
    file = write_table(tmp_path / "corrections.csv", [(copy, "square", "disc")])
    result = check(replace(settings, corrections=file), report)
    assert result.of_kind("conflict") == []
    assert result.to_json()["classes"] == {"disc": 16, "square": 15, "stripes": 15}
    assert result.to_json()["corrections"]["corrected"] == 1
    assert result.to_json()["corrections"]["already_correct"] == 1


def test_cache_features_exports_the_corrected_labels(mislabeled, trained, tmp_path):
    data, file = mislabeled
    settings = CacheFeaturesSettings(
        data=data,
        corrections=file,
        export=tmp_path / "features.parquet",
        network=NetworkSettings(size=64),
        cache=CacheSettings(directory=trained.cache),
    )
    result = cache_features(settings)
    assert (result["images"], result["corrections"]["corrected"]) == (44, 2)
    rows = pq.read_table(tmp_path / "features.parquet").to_pylist()
    assert [row["label"] for row in rows if row["path"].endswith("moved.jpg")] == ["disc", "disc"]


def test_augment_writes_the_corrected_labels(mislabeled, tmp_path):
    data, file = mislabeled
    settings = AugmentSettings(data=data, corrections=file, out=tmp_path / "augmented", group_by="none")
    result = augment(settings)
    assert (result["images"], result["corrections"]["left_out"]) == (44, 1)
    with (tmp_path / "augmented" / "manifest.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    moved = [row for row in rows if row["source"].endswith("moved.jpg") and row["view"] == "0"]
    assert [row["label"] for row in moved] == ["disc", "disc"]
    assert len({row["path"] for row in moved}) == 2, "images of one name from two folders"
    assert sum(row["view"] == "0" for row in rows) == 44
    with pytest.raises(ArtifactError, match=r"corrections was '.*corrections\.csv' and is None"):
        augment(replace(settings, corrections=None, resume=True))


def test_compare_uses_the_corrected_labels(mislabeled, trained, tmp_path, report):
    data, file = mislabeled
    for path in data.rglob("*.jpg"):  # so that these are new images
        with Image.open(path) as image:
            image.rotate(180).save(path)
    rows = [(data / "square" / "moved.jpg", "square", "disc"), (data / "stripes" / "moved.jpg", "stripes", "disc")]
    write_table(file, rows)
    settings = CompareSettings(run_a=trained.run, run_b=trained.run, data=data)
    wrong, right = compare(settings), compare(replace(settings, corrections=file), report)
    assert right.to_json()["corrections"]["corrected"] == 2
    assert right.metrics["accuracy_a"] > wrong.metrics["accuracy_a"]
    with pytest.raises(UsageError, match="--corrections would have no effect without DATA"):
        replace(settings, data=None, corrections=file)


def test_inspect_leaves_out_the_images_that_corrections_leave_out(mislabeled, trained, tmp_path):
    data, file = mislabeled
    settings = InspectSettings(network=str(trained.run), data=data, corrections=file, layers=("1",), units=1)
    result = inspect(replace(settings, out=tmp_path / "out")).to_json()
    assert (result["images"], result["corrections"]["left_out"]) == (44, 1)


@pytest.mark.parametrize(
    "command", ["finetune", "check", "cache-features", "evaluate", "compare", "augment", "inspect"]
)
def test_corrections_that_match_nothing_end_with_4(command, photos, trained, tmp_path, capfd):
    other = tmp_path / "other.jpg"
    other.write_bytes(b"other")
    file = write_table(tmp_path / "corrections.csv", [(other, "disc", "square")])
    arguments = [command, str(photos), "--corrections", str(file), "--json"]
    if command in {"evaluate", "inspect"}:
        arguments.insert(1, str(trained.run))
    elif command == "compare":
        arguments[1:1] = [str(trained.run)] * 2
    elif command != "augment":
        arguments += ["--cache", str(tmp_path / "cache")]
    if command in {"finetune", "augment", "inspect"}:
        arguments += ["--out", str(tmp_path / "run")]
    assert run(arguments) == 4
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["kind"] == "data"
    assert error["message"].startswith(f"none of the 1 corrections in {file} matches an image of {photos}")
    assert error["path"] == str(file)
    assert not (tmp_path / "run").exists()

"""finetune --unlabeled."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.datasets.label_table import GivenLabel, LabelTable
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings, PredictSettings
from tlcli.settings.recorded import settings_to_json


def write_table(photos, tmp_path, per_class):
    """Write a table with some labeled images of each class, and a folder with all images, one of which is damaged."""
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for path in sorted(photos.glob("*/*")):
        copied = shutil.copy(path, images / f"{path.parent.name}-{path.name}")
        if int(path.stem) < per_class:
            rows.append((copied, path.parent.name))
    (images / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return table, images


@pytest.fixture
def few_labels(photos, tmp_path):
    return write_table(photos, tmp_path, 4)


def settings(table, images, trained, out, **changes):
    return FinetuneSettings(
        data=table,
        unlabeled=str(images),
        out=out,
        network=NetworkSettings(size=64),
        cache=CacheSettings(directory=trained.cache),
        **changes,
    )


def test_finetune_learns_from_images_without_labels(few_labels, trained, tmp_path, report):
    table, images = few_labels
    info = finetune(settings(table, images, trained, tmp_path / "run"), report)
    found = info["validation"]["unlabeled"]
    assert found["images"] == len(list(images.iterdir())) - 1 - 12  # the damaged one, and those with a label
    assert 0 <= found["used"] <= found["images"] / 2 + 3
    assert f"Unlabeled {found['images']} images" in report.notes
    assert any("1 of 34 unlabeled images cannot be used" in warning for warning in report.warnings)
    assert info["images"]["train"] == 12
    assert info["images"]["failed"] == 0
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["validation"]["unlabeled"] == found
    assert recorded["settings"]["unlabeled"] == str(images)
    assert "unlabeled images" in (tmp_path / "run" / "report.html").read_text()
    predict(PredictSettings(run=tmp_path / "run", inputs=(str(images),), out=str(tmp_path / "rows.csv")))
    with (tmp_path / "rows.csv").open() as file:
        assert sum(row["label"] == row["path"].rpartition("/")[2].split("-")[0] for row in csv.DictReader(file)) > 40


def test_unlabeled_images_with_a_validation_part_and_refit(photos, trained, tmp_path):
    table, images = write_table(photos, tmp_path, 11)
    info = finetune(settings(table, images, trained, tmp_path / "run", validation_fraction=0.3, refit=True))
    assert info["validation"]["method"] == "holdout"
    assert info["validation"]["unlabeled"]["images"] == 12
    assert info["refitted"]


def test_unlabeled_images_are_recorded(few_labels, trained, tmp_path):
    table, images = few_labels
    first = finetune(settings(table, images, trained, tmp_path / "one"))
    again = finetune(settings(table, images, trained, tmp_path / "two"))
    assert first["validation"] == again["validation"]
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    plain = finetune(settings(table, images, trained, tmp_path / "three", group_by="none"))
    assert plain["validation"]["groups"] is None


@pytest.mark.parametrize(
    ("source", "message", "early"),
    [
        ("nowhere", "--unlabeled: .*nowhere does not exist", True),
        ("empty", "--unlabeled: no images in .*empty", True),
        ("labeled", "--unlabeled: .*besides those of DATA", False),
    ],
)
def test_unusable_sources(few_labels, trained, tmp_path, report, source, message, early):
    table, images = few_labels
    (tmp_path / "empty").mkdir()
    (tmp_path / "labeled").mkdir()
    shutil.copy(images / "disc-00.jpg", tmp_path / "labeled")
    with pytest.raises(DataError, match=message):
        finetune(settings(table, tmp_path / source, trained, tmp_path / "run"), report)
    assert not (tmp_path / "run").exists()
    assert any(note.startswith(("Features", "Up to")) for note in report.notes) != early


def test_options_that_contradict_unlabeled_images(tmp_path):
    with pytest.raises(UsageError, match="--unlabeled has no effect with --freeze auto"):
        FinetuneSettings(data=tmp_path, unlabeled="images", network=NetworkSettings(freeze="auto"))
    with pytest.raises(UsageError, match="--unlabeled is -"):
        FinetuneSettings(data=tmp_path, unlabeled="-")


def test_images_of_no_class_are_not_learned_from(photos, trained, tmp_path):
    """`label` records them with an empty label, and the folder that was labeled still has them."""
    table, images = write_table(photos, tmp_path, 4)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    others = sorted(set(map(str, images.iterdir())) - {row["path"] for row in rows} - {str(images / "damaged.jpg")})
    LabelTable(table.with_name("given.csv")).append(
        GivenLabel(path=path, label=label, source="random", at="2026-01-01T00:00:00Z")
        for path, label in [*((row["path"], row["label"]) for row in rows), *((path, None) for path in others[:5])]
    )
    found = finetune(settings(table.with_name("given.csv"), images, trained, tmp_path / "run"))
    assert found["validation"]["unlabeled"]["images"] == len(others) - 5


def test_resuming_with_other_unlabeled_images(few_labels, trained, tmp_path, monkeypatch):
    table, images = few_labels
    monkeypatch.chdir(tmp_path)
    finetune(settings(table, "images", trained, tmp_path / "run"))
    assert finetune(settings(table, images, trained, tmp_path / "run", resume=True))["was_finished"]
    with pytest.raises(ArtifactError, match=r"unlabeled was '.*images' and is None"):
        finetune(replace(settings(table, images, trained, tmp_path / "run", resume=True), unlabeled=None))
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"--unlabeled {images}" in page


@pytest.mark.parametrize(
    ("source", "expected"),
    [("images", "{here}/images"), ("@list.txt", "@{here}/list.txt"), ("s3://bucket/images", "s3://bucket/images")],
)
def test_the_recorded_source_does_not_depend_on_the_folder(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    recorded = settings_to_json(FinetuneSettings(data=tmp_path, unlabeled=source))
    assert recorded["unlabeled"] == expected.format(here=tmp_path)

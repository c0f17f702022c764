"""finetune --unlabeled."""

import csv
import json
import shutil

import pytest

from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.errors import DataError, UsageError
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings, PredictSettings


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
    assert any("1 of 46 unlabeled images cannot be used" in warning for warning in report.warnings)
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
    ("source", "message"),
    [("nowhere", "nowhere does not exist"), ("empty", "no images in .*empty"), ("labeled", "besides those of DATA")],
)
def test_unusable_sources(few_labels, trained, tmp_path, source, message):
    table, images = few_labels
    (tmp_path / "empty").mkdir()
    (tmp_path / "labeled").mkdir()
    shutil.copy(images / "disc-00.jpg", tmp_path / "labeled")
    with pytest.raises(DataError, match=message):
        finetune(settings(table, tmp_path / source, trained, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_options_that_contradict_unlabeled_images(tmp_path):
    with pytest.raises(UsageError, match="--unlabeled has no effect with --freeze auto"):
        FinetuneSettings(data=tmp_path, unlabeled="images", network=NetworkSettings(freeze="auto"))
    with pytest.raises(UsageError, match="--unlabeled is -"):
        FinetuneSettings(data=tmp_path, unlabeled="-")

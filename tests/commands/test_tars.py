"""Images in tar shards give the same results as in folders."""

from __future__ import annotations

import csv
import io
import tarfile
from collections import Counter

import pytest

from tlcli.commands.cache_features import cache_features
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.runs.directory import free_name
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    EvaluateSettings,
    FinetuneSettings,
    NetworkSettings,
    PredictSettings,
)


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    """Write the images of `photos` to three shards, each with its class in a `.cls` file."""
    root = tmp_path_factory.mktemp("shards")
    for number in range(3):
        with tarfile.open(root / f"photos-{number:03d}.tar", "w") as tar:
            for path in sorted(photos.rglob("*.jpg"))[number::3]:
                name = f"{path.parent.name}/{path.stem}"
                tar.add(path, f"{name}.jpg")
                info = tarfile.TarInfo(f"{name}.cls")
                info.size = len(path.parent.name)
                tar.addfile(info, io.BytesIO(path.parent.name.encode()))
    return root / "photos-{000..002}.tar"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_shards_share_the_feature_cache_and_give_the_same_run(trained, shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = CacheSettings(directory=trained.cache)
    found = cache_features(CacheFeaturesSettings(data=shards, network=NetworkSettings(size=64), cache=cache))
    assert (found["computed"], found["reused"], found["failed"]) == (0, 45, 0)
    info = finetune(FinetuneSettings(data=shards, network=NetworkSettings(size=64), cache=cache))
    assert info["run"] == "runs/photos"
    assert info["data"]["fingerprint"] == trained.info["data"]["fingerprint"]
    assert info["validation"]["confusion"] == trained.info["validation"]["confusion"]
    assert free_name(shards).name == "photos-2"


def test_predictions_and_metrics_equal_those_of_the_folder(trained, shards, photos, tmp_path):
    for inputs, out in ((shards, "shards.csv"), (photos, "folder.csv")):
        predict(PredictSettings(run=trained.run, inputs=(str(inputs),), out=str(tmp_path / out)))
    rows, expected = rows_of(tmp_path / "shards.csv"), rows_of(tmp_path / "folder.csv")
    assert Counter(row["path"].split(".tar/")[0][-3:] for row in rows) == {"000": 15, "001": 15, "002": 15}
    below = {row["path"].split(".tar/")[1]: row["label"] for row in rows}
    assert below == {row["path"].removeprefix(f"{photos}/"): row["label"] for row in expected}
    of_shards, of_folder = (evaluate(EvaluateSettings(run=trained.run, data=data)) for data in (shards, photos))
    assert of_shards["confusion"] == of_folder["confusion"]
    assert of_shards["split"] == of_folder["split"]

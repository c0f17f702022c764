"""`--intensity auto`: the range is measured on train and stored in the run."""

import json

import numpy as np
import pytest
from PIL import Image

from tlcli.cli.main import run
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.errors import DataError, UsageError
from tlcli.progress import Silent


@pytest.fixture
def microscope(tmp_path):
    """Two classes of 12-bit images in train and validation folders; validation is brighter than all of train."""
    generator, root = np.random.default_rng(0), tmp_path / "cells"
    for split, count, high in (("train", 12, 2000), ("val", 4, 4000)):
        for label, low in (("dim", 100), ("lit", 900)):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                values = generator.integers(low, high if label == "lit" else low + 300, (24, 24)).astype(np.uint16)
                values[0, 0], values[0, 1] = (100, 1999) if split == "train" and number == 0 else (low, low)
                Image.fromarray(values).save(root / split / label / f"{number}.tif")
    return root


def test_the_range_is_measured_on_train_only(microscope, report):
    dataset = open_dataset(microscope)
    assert resolve_intensity("auto", dataset, fraction=None, seed=0, workers=1, report=report) == (100, 1999)
    assert report.notes == ["Intensity 100 to 1999, measured on 24 training images with more than 8 bits"]


def test_auto_needs_high_bit_depth_images_with_more_than_one_value(photos, tmp_path):
    assert resolve_intensity("5,9", open_dataset(photos), fraction=None, seed=0, workers=1, report=Silent()) == (5, 9)
    with pytest.raises(UsageError, match="--intensity auto has no effect"):
        resolve_intensity("auto", open_dataset(photos), fraction=None, seed=0, workers=1, report=Silent())
    for label in "ab":
        (tmp_path / "flat" / label).mkdir(parents=True)
        Image.fromarray(np.full((9, 9), 7, np.uint16)).save(tmp_path / "flat" / label / "x.png")
    with pytest.raises(DataError, match="have a single value, 7"):
        resolve_intensity("auto", open_dataset(tmp_path / "flat"), fraction=None, seed=0, workers=1, report=Silent())


def test_the_run_stores_its_range_and_prediction_uses_it(microscope, tmp_path, capsys):
    out, cache = tmp_path / "run", tmp_path / "cache"
    network = ["--backbone", "lenet5", "--weights", "none", "--workers", "1", "--cache", str(cache), "--quiet"]
    assert run(["finetune", str(microscope), "--out", str(out), "--intensity", "auto", *network]) == 0
    info = json.loads((out / "run.json").read_text())
    assert info["preprocessing"]["intensity"] == [100, 1999]
    assert info["settings"]["intensity"] == "auto"
    # With the same range given explicitly, all features are reused; with another range or none, no feature is.
    for given, reused in ((["--intensity", "100,1999"], 32), (["--intensity", "0,1999"], 0), ([], 0)):
        capsys.readouterr()
        assert run(["cache-features", str(microscope), *given, *network, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["reused"] == reused
    # Images twice as bright give other predictions, because the range of the run is fixed.
    assert run(["predict", str(out), str(microscope / "val"), "--probabilities", "--quiet"]) == 0
    rows = capsys.readouterr().out.splitlines()
    for path in (microscope / "val").rglob("*.tif"):
        Image.fromarray(np.asarray(Image.open(path)) * 2).save(path)
    assert run(["predict", str(out), str(microscope / "val"), "--probabilities", "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() != rows

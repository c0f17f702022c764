"""Gray images with more than 8 bits: one range for all images, measured on train and stored in the run."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tlcli.cli.main import run
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.errors import DataError, UsageError
from tlcli.images.decode import UndecodableError, decode, measure_intensity
from tlcli.progress import Silent
from tlcli.settings import NetworkSettings

RAMP = np.linspace(0, 4095, 256).reshape(16, 16)


def encode(values, form="TIFF"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_the_range_is_scaled_to_black_and_white_and_other_values_are_clipped(kind):
    found = np.asarray(decode(encode(RAMP.astype(kind)), 1, intensity=(1000, 3000)), np.float64)
    expected = np.clip((RAMP.astype(kind) - 1000.0) * 255 / 2000, 0, 255)
    assert np.abs(found - expected).max() <= 0.5


def test_floats_between_zero_and_one():
    found = np.asarray(decode(encode((RAMP / 4095).astype(np.float32)), 3, intensity=(0.0, 1.0)))
    assert found.shape == (16, 16, 3)
    assert found.reshape(-1, 3)[:, 0].tolist() == list(range(256))


def test_a_dark_image_stays_darker_than_a_bright_one():
    dark, bright = (
        np.asarray(decode(encode((RAMP * by).astype(np.uint16)), 1, intensity=(0, 4095))) for by in (0.1, 1)
    )
    assert dark.max() < 30 < bright.max()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_rejected(value):
    values = RAMP.astype(np.float32)
    values[3, 4] = value
    with pytest.raises(UndecodableError, match="NaN or infinite"):
        decode(encode(values), 1, intensity=(0, 1))
    with pytest.raises(UndecodableError, match="NaN or infinite"):
        measure_intensity(encode(values))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_8_bit_images_have_no_range_and_ignore_one(mode):
    image = Image.fromarray(RAMP.astype(np.uint8)).convert(mode)
    data = io.BytesIO()
    image.save(data, "PNG")
    assert measure_intensity(data.getvalue()) is None
    one, other = (decode(data.getvalue(), 3, intensity=given) for given in (None, (5, 6)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", ["1", "5,5", "9,1", "a,b", "nan,1", "0,inf", "1,2,3", ""])
def test_invalid_ranges(text):
    with pytest.raises(UsageError, match=r"--intensity is .*expected LO,HI"):
        NetworkSettings(intensity=text)


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

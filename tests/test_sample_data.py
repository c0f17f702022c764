"""The sample images: number, uniqueness, difficulty, and reproducibility."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings

SAMPLES = Path(__file__).parents[1] / "sample_data"


def test_number_of_images():
    counts = {folder.name: len(list(folder.glob("*.jpg"))) for folder in (SAMPLES / "pictures").iterdir()}
    assert counts == {"car": 30, "neither": 30, "pedestrian": 30}
    assert len(list((SAMPLES / "to_predict").glob("*.jpg"))) >= 4
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in SAMPLES.rglob("*.jpg")}
    assert len(digests) == len(list(SAMPLES.rglob("*.jpg")))


@pytest.mark.slow
def test_pretrained_features_are_clearly_better_than_random_ones(tmp_path):
    accuracy = {}
    for weights in ("pretrained", "none"):
        settings = FinetuneSettings(
            data=SAMPLES / "pictures",
            out=tmp_path / weights,
            network=NetworkSettings(weights=weights),
            compute=ComputeSettings(engine="torch"),  # without exporting both networks, which takes longer
            cache=CacheSettings(enabled=False),
        )
        accuracy[weights] = finetune(settings)["validation"]["accuracy"]
    assert accuracy["pretrained"] >= 0.9
    assert accuracy["none"] <= accuracy["pretrained"] - 0.15


@pytest.mark.slow
def test_the_script_reproduces_the_images(tmp_path):
    subprocess.run([sys.executable, SAMPLES / "draw.py", tmp_path], check=True, capture_output=True)
    for path in SAMPLES.rglob("*.jpg"):
        drawn = tmp_path / path.relative_to(SAMPLES)
        # Other versions of Pillow may compress slightly differently.
        one, two = (np.asarray(Image.open(name), dtype=float) for name in (path, drawn))
        assert one.shape == two.shape
        assert np.abs(one - two).mean() < 2

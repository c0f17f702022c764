"""predict streams its inputs: memory does not grow with the number of images."""

import os

import numpy as np
import pytest
from PIL import Image

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings


@pytest.fixture
def small_run(photos, tmp_path):
    settings = FinetuneSettings(
        data=photos,
        out=tmp_path / "run",
        network=NetworkSettings(backbone="lenet5", weights="none"),
        cache=CacheSettings(enabled=False),
    )
    finetune(settings)
    return tmp_path / "run"


@pytest.mark.slow
def test_memory_is_constant_in_the_number_of_images(small_run, tmp_path, measured):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    for name, count in (("some", 400), ("many", 4000)):
        (tmp_path / name).mkdir()
        for index in range(count):
            os.link(tmp_path / "one.png", tmp_path / name / f"{index}.png")

    def peak(name):
        done, kilobytes = measured("predict", small_run, tmp_path / name, "--out", tmp_path / f"{name}.csv")
        assert done.returncode == 0
        return kilobytes

    some, many = peak("some"), peak("many")
    assert len((tmp_path / "many.csv").read_text().splitlines()) == 4001
    # Kept pixels would take 3.7 MB more, kept paths and rows 1 MB; the rest is slack for the allocator.
    assert many < some + 16_000

"""Train LeNet-5 from random weights on the handwritten digits of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings


@pytest.mark.slow
def test_lenet_generalizes_to_digits_of_new_writers(tmp_path):
    """The last 360 digits are by writers of no other split. (A support vector machine reaches 0.958 on them.)"""
    digits = load_digits()
    first_of_test = len(digits.target) - 360
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "test" if index >= first_of_test else "train"
        path = tmp_path / "digits" / split / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).resize((32, 32)).save(path)
    info = finetune(
        FinetuneSettings(
            data=tmp_path / "digits",
            out=tmp_path / "run",
            network=NetworkSettings(backbone="lenet5", weights="none", freeze="none"),
            cache=CacheSettings(enabled=False),
        )
    )
    assert info["test"]["images"] == 360
    assert info["test"]["accuracy"] >= 0.96

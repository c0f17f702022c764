"""Half precision is used where its features are those of fp32, which then share a cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.selection import open_runner
from tlcli.engines.torch_engine import numerics
from tlcli.features.network import make_preprocessing
from tlcli.images.preprocess import whole_image
from tlcli.progress import Silent


class Heard(Silent):
    """Keeps the warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


class Scaled(nn.Module):
    """A convolution whose maps are so many times as large."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.scale = nn.Conv2d(3, 8, 3), scale

    def forward(self, inputs):
        return self.convolution(inputs * self.scale).float() / self.scale


def runner_of(prefix, preprocessing, precision, heard):
    """On a CPU, where fp16 is slow but the same arithmetic."""
    return open_runner(
        prefix,
        preprocessing,
        exported=None,
        required=False,
        device=torch.device("cpu"),
        precision=precision,
        report=heard,
    )


def test_what_overflows_in_fp16_runs_in_fp32():
    heard, size = Heard(), whole_image(12)
    runner = runner_of(Scaled(1e6), size, "fp16", heard)
    assert runner.precision == "fp32"
    assert heard.warnings == ["this network gives other features in fp16 than in fp32; going on in fp32."]
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size.shape), np.uint8)
    exact = runner_of(Scaled(1e6), size, "fp32", heard).features(pixels)
    assert torch.equal(runner.features(pixels), exact)
    assert len(heard.warnings) == 1


@pytest.mark.parametrize("freeze", ["all", "blocks.2"])
def test_the_default_backbone_in_fp16_gives_the_features_of_fp32(draw, tmp_path, freeze):
    from tlcli.images.batch import stacked
    from tlcli.images.worker import DecodeOptions, read_image

    backbone, heard = load_backbone(classes=3, size=64), Heard()
    preprocessing = make_preprocessing(backbone, "crop")
    paths = [draw(tmp_path / f"{number}.png", number, size=(90, 70)) for number in range(6)]
    images = [read_image(str(path), DecodeOptions(preprocessing=preprocessing)).pixels for path in paths]
    pixels = stacked(images, preprocessing.shape)
    features = {}
    for precision in ("fp16", "fp32"):
        runner = runner_of(cut_at(backbone, freeze).prefix, preprocessing, precision, heard)
        assert runner.precision == precision
        features[precision] = runner.features(pixels).flatten(1)
    assert not heard.warnings
    assert not torch.equal(features["fp16"], features["fp32"])
    assert functional.cosine_similarity(features["fp16"], features["fp32"]).min() >= 0.9999


def test_precisions_that_agree_share_a_cache():
    assert numerics("fp16") == numerics("fp32") == "fp32"
    assert numerics("bf16") == "bf16"

"""fp16 is used only if its features agree with those in fp32, because both share a cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import feature_numerics
from tlcli.engines.opening import open_runner
from tlcli.features.backbone import make_preprocessing
from tlcli.images.preprocess import display_preprocessing
from tlcli.progress import Silent


class WarningRecorder(Silent):
    """Records warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


class Scaled(nn.Module):
    """A convolution whose intermediate maps are multiplied by `scale`."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.scale = nn.Conv2d(3, 8, 3), scale

    def forward(self, inputs):
        return self.convolution(inputs * self.scale).float() / self.scale


def open_torch(prefix, preprocessing, precision, recorder):
    """Run on a CPU, where fp16 is slow but uses the same arithmetic as on a GPU."""
    return open_runner(
        lambda: prefix,
        preprocessing,
        exported=None,
        requested="torch",
        device=torch.device("cpu"),
        precision=precision,
        report=recorder,
    )


def test_a_network_that_overflows_in_fp16_runs_in_fp32():
    recorder, size = WarningRecorder(), display_preprocessing(12)
    runner = open_torch(Scaled(1e6), size, "fp16", recorder)
    assert runner.precision == "fp32"
    assert recorder.warnings == ["features of this network in fp16 differ from those in fp32; continuing in fp32."]
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size.shape), np.uint8)
    exact = open_torch(Scaled(1e6), size, "fp32", recorder).features(pixels)
    assert torch.equal(runner.features(pixels), exact)
    assert len(recorder.warnings) == 1


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["all", "blocks.2"])
def test_the_default_backbone_in_fp16_gives_the_features_of_fp32(draw, tmp_path, freeze):
    from tlcli.images.batch import stack_images
    from tlcli.images.worker import DecodeOptions, read_image

    backbone, recorder = load_backbone(classes=3, size=64), WarningRecorder()
    preprocessing = make_preprocessing(backbone, "crop")
    paths = [draw(tmp_path / f"{number}.png", number, size=(90, 70)) for number in range(6)]
    images = [read_image(str(path), DecodeOptions(preprocessing=preprocessing)).pixels for path in paths]
    pixels = stack_images(images, preprocessing.shape)
    features = {}
    for precision in ("fp16", "fp32"):
        runner = open_torch(cut_at(backbone, freeze).prefix, preprocessing, precision, recorder)
        assert runner.precision == precision
        features[precision] = runner.features(pixels).flatten(1)
    assert not recorder.warnings
    assert not torch.equal(features["fp16"], features["fp32"])
    assert functional.cosine_similarity(features["fp16"], features["fp32"]).min() >= 0.9999


def test_fp16_and_fp32_share_a_cache_but_bf16_has_one_for_each_engine():
    assert {feature_numerics(*how) for how in (("fp16", "torch"), ("fp32", "torch"), ("fp32", "openvino"))} == {"fp32"}
    assert feature_numerics("bf16", "torch") == "bf16"
    assert feature_numerics("bf16", "openvino") not in {"bf16", "fp32"}

"""ONNX Runtime says what torch says, from an export that is made once and never trusted blindly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines import onnx_export
from tlcli.engines.onnx_export import ExportError, OnnxRunner
from tlcli.engines.torch_engine import ONNX_FROM, PrefixRunner, pick_engine
from tlcli.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def exported(prefix, shape=(8, 8, 3), directory=None):
    """The prefix in ONNX Runtime, and how often it was exported for that."""
    exports = []
    model = onnx_export.exported(prefix, shape, MEAN[: shape[2]], STD[: shape[2]], directory, lambda: exports.append(1))
    return OnnxRunner(model), len(exports)


def pixels_of(shape, count=5):
    return np.random.default_rng(3).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize(
    ("name", "freeze", "size"),
    [
        ("tf_efficientnet_lite0", "all", 64),
        ("tf_efficientnet_lite0", "7", 64),
        ("lenet5", "2", None),
        ("test_vit", "all", None),
        ("resnet18", "all", 64),
        ("convnext_atto", "9", 64),
    ],
)
def test_it_says_what_torch_says(name, freeze, size):
    weights = "pretrained" if name == "tf_efficientnet_lite0" else "none"
    backbone = load_backbone(name, weights, classes=3, size=size, seed=0)
    prefix = cut_at(backbone, freeze).prefix
    spec = backbone.input
    shape = (spec.height, spec.width, spec.channels)
    runner, _ = exported(prefix, shape)
    plain = PrefixRunner(prefix, MEAN[: shape[2]], STD[: shape[2]], device=CPU, precision="fp32")
    pixels = pixels_of(shape)
    expected = plain.features(pixels)
    for found in (runner.features(pixels), torch.cat([runner.features(pixels[:2]), runner.features(pixels[2:])])):
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert functional.cosine_similarity(found.flatten(1), expected.flatten(1)).min() >= 0.9999
    batches = list(runner.map([pixels[:1], pixels[1:4], pixels[4:]]))
    np.testing.assert_allclose(np.concatenate(batches), expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_it_is_exported_once(small, tmp_path):
    first, exports = exported(small, directory=tmp_path / "new")
    assert exports == 1
    again, exports = exported(small, directory=tmp_path / "new")
    assert exports == 0
    pixels = pixels_of((8, 8, 3))
    assert torch.equal(first.features(pixels), again.features(pixels))


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "gone"])
def test_a_damaged_export_is_made_anew(small, tmp_path, harm):
    exported(small, directory=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-9], "flipped": flipped, "empty": b""}[harm])
    assert exported(small, directory=tmp_path)[1] == 1
    assert exported(small, directory=tmp_path)[1] == 0


def test_an_export_by_another_torch_is_not_used(small, tmp_path, monkeypatch):
    exported(small, directory=tmp_path)
    monkeypatch.setattr(torch, "__version__", "99")
    assert exported(small, directory=tmp_path)[1] == 1


class Moody(nn.Module):
    """Goes by the pixels' values, which no export can follow."""

    def forward(self, images):
        return images.mean((2, 3)) if images.mean().item() > 0 else images.amax((2, 3))


class Random(nn.Module):
    """Never says the same twice."""

    def forward(self, images):
        return torch.randn_like(images).mean((2, 3))


@pytest.mark.parametrize(("network", "reason"), [(Moody(), "can't export"), (Random(), "differs from torch by")])
def test_what_can_t_be_exported_or_says_something_else_is_refused(network, reason, tmp_path):
    with pytest.raises(ExportError, match=reason):
        exported(network, directory=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "device", "precision", "images", "picked"),
    [
        ("auto", CPU, "fp32", ONNX_FROM, "onnx"),
        ("auto", CPU, "fp32", ONNX_FROM - 1, "torch"),
        ("auto", CPU, "fp32", None, "onnx"),
        ("auto", CUDA, "fp16", None, "torch"),
        ("auto", CPU, "bf16", 10**6, "torch"),
        ("auto", CUDA, "fp16", 10**6, "torch"),
        ("torch", CPU, "fp32", 10**6, "torch"),
        ("onnx", CPU, "fp32", 1, "onnx"),
    ],
)
def test_which_engine(asked, device, precision, images, picked):
    assert pick_engine(asked, device, precision, images) == picked


@pytest.mark.parametrize(("device", "precision"), [(CPU, "bf16"), (CUDA, "fp32")])
def test_onnx_where_it_has_no_use(device, precision):
    with pytest.raises(UsageError, match="--engine onnx runs on a CPU in fp32"):
        pick_engine("onnx", device, precision, 10)

"""An export gives the features of torch, is made once, and is checked before use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.exported_engine import ExportedRunner
from tlcli.engines.onnx_export import ExportError, load_or_export_onnx
from tlcli.engines.onnx_session import OnnxSession
from tlcli.engines.openvino_session import OpenVinoSession
from tlcli.engines.torch_engine import TorchRunner
from tlcli.images.preprocess import Preprocessing

CPU = torch.device("cpu")


def preprocessing_of(shape):
    height, width, channels = shape
    return Preprocessing(
        height=height,
        width=width,
        channels=channels,
        fit="squash",
        crop_fraction=1.0,
        interpolation="bicubic",
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.25)[:channels],
    )


def export(prefix, shape=(8, 8, 3), directory=None, session=OnnxSession):
    """Return the prefix in an engine, and how often it was exported for that."""
    exports = []
    model = load_or_export_onnx(lambda: prefix, preprocessing_of(shape), directory, on_export=lambda: exports.append(1))
    return ExportedRunner(session(model)), len(exports)


def session_of(engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
        return OpenVinoSession
    return OnnxSession


def pixels_of(shape, count=5):
    return np.random.default_rng(3).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
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
def test_exports_agree_with_torch(name, freeze, size, engine):
    session = session_of(engine)
    weights = "pretrained" if name == "tf_efficientnet_lite0" else "none"
    backbone = load_backbone(name, weights, classes=3, size=size, seed=0)
    prefix = cut_at(backbone, freeze).prefix
    spec = backbone.input
    shape = (spec.height, spec.width, spec.channels)
    runner, _ = export(prefix, shape, session=session)
    assert runner.engine == engine
    plain = TorchRunner(prefix, preprocessing_of(shape), device=CPU, precision="fp32")
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


def test_a_prefix_is_exported_once(small, tmp_path):
    first, exports = export(small, directory=tmp_path / "new")
    assert exports == 1
    again, exports = export(small, directory=tmp_path / "new")
    assert exports == 0
    pixels = pixels_of((8, 8, 3))
    assert torch.equal(first.features(pixels), again.features(pixels))


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "deleted"])
def test_a_damaged_export_is_replaced(small, tmp_path, harm):
    export(small, directory=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if harm == "deleted":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-9], "flipped": flipped, "empty": b""}[harm])
    assert export(small, directory=tmp_path)[1] == 1
    assert export(small, directory=tmp_path)[1] == 0


def test_an_export_by_another_torch_is_not_used(small, tmp_path, monkeypatch):
    export(small, directory=tmp_path)
    monkeypatch.setattr(torch, "__version__", "99")
    assert export(small, directory=tmp_path)[1] == 1


class Branching(nn.Module):
    """Has control flow that depends on pixel values, which cannot be exported."""

    def forward(self, images):
        return images.mean((2, 3)) if images.mean().item() > 0 else images.amax((2, 3))


class Random(nn.Module):
    """Gives a different output each time."""

    def forward(self, images):
        return torch.randn_like(images).mean((2, 3))


@pytest.mark.parametrize(("network", "reason"), [(Branching(), "cannot export"), (Random(), "differs from torch by")])
def test_a_network_that_cannot_be_exported_or_whose_export_differs_is_refused(network, reason, tmp_path):
    with pytest.raises(ExportError, match=reason):
        export(network, directory=tmp_path)
    assert not list(tmp_path.iterdir())

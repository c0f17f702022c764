"""Grad-CAM highlights planted cues, in networks of many kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.input_spec import InputSpec
from tlcli.errors import UsageError
from tlcli.features.backbone import make_preprocessing
from tlcli.images.preprocess import Preprocessing
from tlcli.insight.explanations.gradcam import GradCam

CPU = torch.device("cpu")
SIDE = 32
RED, BLUE = 0, 1

PREPROCESSING = Preprocessing(
    height=SIDE,
    width=SIDE,
    channels=3,
    fit="crop",
    crop_fraction=1.0,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


class RedOrBlue(nn.Module):
    """Class 0 measures red and class 1 blue, with two pooled units of 8 x 8 positions."""

    pretrained_cfg = {"classifier": "head"}
    num_classes = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, 4)
        self.act = nn.ReLU()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            weight = torch.zeros(2, 3, 4, 4)
            weight[RED, 0], weight[RED, 1:] = 1 / 16, -1 / 16
            weight[BLUE, 2], weight[BLUE, :2] = 1 / 16, -1 / 16
            self.conv.weight.copy_(weight)
            self.conv.bias.zero_()
            self.head.weight.copy_(torch.eye(2))
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(self.act(self.conv(images)).mean((2, 3)))


def red_or_blue():
    spec = InputSpec(
        channels=3,
        height=SIDE,
        width=SIDE,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        interpolation="bilinear",
        crop_fraction=1.0,
    )
    return Backbone(name="red-or-blue", build=RedOrBlue, input=spec, origin="handmade")


def spots():
    """An image with a red spot at the upper left and a blue one at the lower right."""
    pixels = np.full((1, SIDE, SIDE, 3), 40, np.uint8)
    pixels[0, 4:8, 8:12] = (255, 0, 0)
    pixels[0, 24:28, 20:24] = (0, 0, 255)
    return pixels


def test_only_the_cue_is_highlighted():
    cam = GradCam(red_or_blue(), PREPROCESSING, device=CPU)
    both = np.concatenate([spots(), spots()])
    red, blue = cam.maps(both, [RED, BLUE])
    assert red.shape == (8, 8)
    assert np.argwhere(red > 0).tolist() == [[1, 2]]
    assert np.argwhere(blue > 0).tolist() == [[6, 5]]


def test_values_match_the_definition():
    """Compare with max(sum of units, each weighted by the mean gradient of the class's logit, 0)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("resnet10t", pretrained_config("resnet10t"), classes=5, size=96)
    preprocessing = make_preprocessing(backbone, "crop")
    image = np.random.default_rng(3).integers(0, 256, (1, *preprocessing.shape)).astype(np.uint8)
    pixels = np.repeat(image, 5, axis=0)
    found = GradCam(backbone, preprocessing, device=CPU).maps(pixels, range(5))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    units = backbone.model.forward_features(images).detach().requires_grad_()
    logits = backbone.model.forward_head(units)
    (gradient,) = torch.autograd.grad(logits.diagonal().sum(), units)
    expected = (gradient.mean((2, 3), keepdim=True) * units).sum(1).clamp(min=0)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-3, atol=1e-6)


def test_a_mirrored_image_has_a_mirrored_map(trained, photos):
    from PIL import Image

    from tlcli.images.preprocess import fit_image
    from tlcli.inference.load_network import load_network
    from tlcli.runs.run import load_run

    run = load_run(trained.run)
    cam = GradCam(load_network(run), run.preprocessing, device=CPU)
    agreements = []
    for label, name in enumerate(run.classes):
        with Image.open(photos / name / "03.jpg") as image:
            pixels = np.asarray(fit_image(image, run.preprocessing))
        plain, mirrored = cam.maps(np.stack([pixels, pixels[:, ::-1]]), [label, label])
        agreements.append(np.corrcoef(plain.ravel(), mirrored[:, ::-1].ravel())[0, 1])
        assert plain.max() > 0
    assert np.mean(agreements) > 0.5
    assert np.mean(agreements) > np.corrcoef(plain.ravel(), mirrored.ravel())[0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("lenet5", "conv2", (5, 5)),
        ("tf_efficientnet_lite0", "conv_head", (7, 7)),
        ("convnext_atto", "stages.3.blocks.1", (7, 7)),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.1", (7, 7)),
        ("vit_tiny_patch16_224", "blocks.10", (14, 14)),
    ],
)
def test_maps_of_many_kinds_of_networks(name, layer, shape):
    """For a transformer that reads only its class token, the input of the last block is used."""
    backbone = build_backbone(name, pretrained_config(name), classes=3, size=None)
    cam = GradCam(backbone, make_preprocessing(backbone, "crop"), device=CPU)
    assert cam.layer == layer
    pixels = np.random.default_rng(0).integers(0, 256, (2, *make_preprocessing(backbone, "crop").shape))
    maps = cam.maps(pixels.astype(np.uint8), [0, 2])
    assert maps.shape == (2, *shape)
    assert maps.min() >= 0


def test_a_network_without_maps_is_refused():
    class Flat(RedOrBlue):
        def forward(self, images):
            return self.head(self.conv(images).mean((2, 3)) * 0)

    backbone = red_or_blue()
    flat = Backbone(name="flat", build=Flat, input=backbone.input, origin="handmade")
    with pytest.raises(UsageError, match="the logits of flat depend on none"):
        GradCam(flat, PREPROCESSING, device=CPU)

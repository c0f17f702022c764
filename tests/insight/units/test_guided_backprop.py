"""Guided backpropagation matches manually computed values."""

import math

import pytest
import torch
from timm.layers import create_act_layer
from torch import nn
from torch.nn import functional

from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.insight.units.guided_backprop import guided, guided_gradients

INPUTS = torch.tensor([[-4.0, -2.0, -0.5, 0.5, 2.0, 7.0]])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def silu_slope(x):
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def gelu_slope(x):
    return normal_cdf(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


SLOPES = {
    "relu": lambda x: float(x > 0),
    "relu6": lambda x: float(0 < x < 6),
    "silu": lambda x: max(silu_slope(x), 0.0),
    "gelu": lambda x: max(gelu_slope(x), 0.0),
    "hardswish": lambda x: 0.0 if x < -1.5 else 1.0 if x > 3 else (2 * x + 3) / 6,
    "tanh": lambda x: 1 - math.tanh(x) ** 2,
    "sigmoid": lambda x: sigmoid(x) * (1 - sigmoid(x)),
    "quick_gelu": lambda x: max(sigmoid(1.702 * x) * (1 + 1.702 * x * (1 - sigmoid(1.702 * x))), 0.0),
}

FORMS = [
    ("relu", nn.ReLU()),
    ("relu", nn.ReLU(inplace=True)),
    ("relu", functional.relu),
    ("relu", lambda x: functional.relu(x, True)),
    ("relu", functional.relu_),
    ("relu", torch.relu),
    ("relu", lambda x: x.relu_()),
    ("relu6", nn.ReLU6(inplace=True)),
    ("relu6", functional.relu6),
    ("relu6", nn.Hardtanh(0, 6)),
    ("silu", nn.SiLU(inplace=True)),
    ("silu", functional.silu),
    ("gelu", nn.GELU()),
    ("gelu", functional.gelu),
    ("hardswish", nn.Hardswish()),
    ("tanh", nn.Tanh()),
    ("tanh", torch.tanh),
    ("sigmoid", lambda x: x.sigmoid()),
    ("quick_gelu", create_act_layer("quick_gelu")),
]


class Weighted(nn.Module):
    """Applies an activation function to each entry and multiplies it by a weight."""

    def __init__(self, form, weights):
        super().__init__()
        self.form = form
        self.weights = weights

    def forward(self, x):
        return self.form(x + 0) * self.weights


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_negative_gradients_stop_at_every_activation_function(name, form):
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, -2.0, 5.0])
    gradient, value, count = guided_gradients(Weighted(form, weights), INPUTS, lambda y: y.sum(1))
    expected = [SLOPES[name](x) * max(w, 0) for x, w in zip(INPUTS[0].tolist(), weights.tolist(), strict=True)]
    assert gradient[0].tolist() == pytest.approx(expected, abs=2e-6)
    assert count == 1
    assert value.item() == pytest.approx(Weighted(form, weights)(INPUTS).sum().item(), rel=1e-6)


def test_two_layers_match_manual_values():
    """For y = relu(2 relu(x0 - x1) - 0.25 relu(x0 + x1)), only the positive first branch contributes."""
    first = nn.Linear(2, 2, bias=False)
    first.weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    second = nn.Linear(2, 1, bias=False)
    second.weight.data = torch.tensor([[2.0, -0.25]])
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    gradient, value, count = guided_gradients(network, torch.tensor([[3.0, 1.0]]), lambda y: y[:, 0])
    assert value.item() == 3.0
    assert count == 2
    # Plain: 2 * (1, -1) - 0.25 * (1, 1). Guided: the second unit's -0.25 is stopped at its ReLU.
    assert gradient.tolist() == [[2.0, -2.0]]


def test_without_activation_functions_gradients_are_plain_and_the_count_is_zero():
    gradient, _, count = guided_gradients(Weighted(lambda x: x, torch.tensor([-1.0])), INPUTS, lambda y: y.sum(1))
    assert count == 0
    assert (gradient == -1).all()


def test_modules_are_restored_afterwards():
    layer = create_act_layer("quick_gelu")
    with guided(layer):
        layer(INPUTS)
    assert "forward" not in layer.__dict__


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet18", "lenet5"])
def test_values_are_unchanged(name):
    """Guiding changes the backward pass, never the forward pass."""
    backbone = load_backbone(name, "none", classes=3, size=None if name == "lenet5" else 64)
    assert trace_backbone(backbone) is not None
    spec = backbone.input
    images = torch.randn(2, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone.model(images)
    _, values, count = guided_gradients(backbone.model, images, lambda y: y[:, 0])
    assert values.tolist() == pytest.approx(expected[:, 0].tolist(), rel=1e-3, abs=1e-5)
    assert count > 3

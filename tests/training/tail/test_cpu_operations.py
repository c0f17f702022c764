"""The convolutions of training give the gradients of torch's own."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from tlcli.engines.torch_engine import autocast
from tlcli.training.tail.cpu_operations import FastOperations

CPU = torch.device("cpu")


def gradients(network, inputs, mode, precision="fp32"):
    """Return the outputs, and the gradients of the inputs and of all parameters, by name."""
    inputs = inputs.clone().requires_grad_()
    network.zero_grad()
    with mode, autocast(precision, CPU):
        outputs = network(inputs)
    weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    (outputs.float() * weights).sum().backward()
    found = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    return outputs.detach(), found | {"inputs": inputs.grad}


def assert_close(ours, expected, tolerance):
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    scale = expected.abs().max().clamp(min=1e-2)
    assert ((ours - expected).abs().max() / scale).item() < tolerance


def compare(network, inputs, *, precision="fp32", tolerance=1e-4, folded=None):
    mode = FastOperations(network, inputs)
    ours, our_gradients = gradients(network, inputs, mode, precision)
    expected, their_gradients = gradients(network, inputs, torch.autograd.set_grad_enabled(True))
    assert_close(ours.float(), expected, tolerance)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        assert_close(our_gradients[name], gradient, tolerance)
    if folded is not None:
        assert mode.folded == folded


@pytest.mark.parametrize("kernel", [2, 3, 5, (3, 7)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
@pytest.mark.parametrize("padding", [0, 1, 3, (2, 0), "valid"])
def test_depthwise_convolutions(kernel, stride, padding):
    torch.manual_seed(0)
    for bias in (True, False):
        network = nn.Conv2d(8, 8, kernel, stride=stride, padding=padding, groups=8, bias=bias)
        compare(network, torch.randn(3, 8, 11, 9))
        compare(network, torch.randn(3, 8, 11, 9), precision="bf16", tolerance=0.05)


def test_large_maps_other_multipliers_and_dilations():
    torch.manual_seed(0)
    compare(nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 40, 40))
    compare(nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 40, 40), precision="bf16", tolerance=0.05)
    compare(nn.Conv2d(4, 8, 3, padding=1, groups=4), torch.randn(2, 4, 9, 9))
    compare(nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4), torch.randn(2, 4, 9, 9))
    compare(nn.Conv2d(4, 4, 3, padding="same", groups=4), torch.randn(2, 4, 9, 9), precision="bf16", tolerance=0.05)


class Branching(nn.Module):
    """Three convolutions: one that only a BatchNorm uses, one that a sum uses as well, and one that is called twice."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        for norm in self.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, maps):
        maps = self.norms[0](self.convolutions[0](maps)).relu_()
        again = self.convolutions[1](maps)
        maps = self.norms[1](again) + again
        maps = self.norms[2](self.convolutions[2](maps))
        return self.norms[3](self.convolutions[2](maps)).mean(dim=(2, 3))


def test_only_a_batch_norm_that_nothing_bypasses_is_folded():
    torch.manual_seed(0)
    compare(Branching().eval(), torch.randn(2, 4, 6, 6), folded=1)


def test_batch_statistics_are_not_folded():
    network, inputs = Branching().train(), torch.randn(2, 4, 6, 6)
    means = [norm.running_mean.clone() for norm in network.norms]
    mode = FastOperations(network, None)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(network.norms, means, strict=True))
    with mode:
        network(inputs)
    assert mode.folded == 0
    assert not any(torch.equal(norm.running_mean, mean) for norm, mean in zip(network.norms, means, strict=True))


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "convnext_atto", "densenet121", "vgg11_bn"]
)
@pytest.mark.slow
def test_gradients_of_networks_are_the_same(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, exportable=False).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    compare(network.double().float(), torch.randn(2, 3, 64, 64), tolerance=2e-3)


def test_outside_of_the_mode_nothing_changes():
    network, inputs = Branching().eval(), torch.randn(2, 4, 6, 6)
    before = network(inputs)
    with FastOperations(network, inputs):
        functional.relu(inputs)
    assert torch.equal(network(inputs), before)


class Pooling(nn.Module):
    """A convolution, and a mean over its pixels."""

    def __init__(self, pool):
        super().__init__()
        self.convolution, self.pool = nn.Conv2d(3, 4, 3), pool

    def forward(self, images):
        return self.pool(self.convolution(images))


@pytest.mark.parametrize(
    "pool",
    [
        lambda maps: maps.mean((2, 3)),
        lambda maps: maps.mean([-1, -2], keepdim=True),
        lambda maps: torch.mean(maps, dim=(2, 3), keepdim=False),
        lambda maps: torch.mean(maps, (2, 3), True),
        lambda maps: functional.adaptive_avg_pool2d(maps, 1),
        lambda maps: functional.adaptive_avg_pool2d(maps, output_size=(1, 1)),
        lambda maps: functional.adaptive_avg_pool2d(maps, 2),  # these are others
        lambda maps: functional.adaptive_avg_pool2d(maps, (1, None)),
        lambda maps: maps.mean(),
        lambda maps: maps.mean(1),
        lambda maps: maps.mean((1, 2)),
        lambda maps: maps.flatten(2).mean(dim=-1),
    ],
)
def test_means(pool):
    torch.manual_seed(0)
    compare(Pooling(pool), torch.randn(2, 3, 7, 9))
    compare(Pooling(pool), torch.randn(2, 3, 7, 9), precision="bf16", tolerance=0.05)

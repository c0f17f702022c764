"""Autocast in training, and what stays outside of it on a CPU."""

import pytest
import torch
from torch import nn

from tlcli.engines.torch_engine import autocast
from tlcli.training.tail.precision import depthwise_in_fp32, training_precision

CPU = torch.device("cpu")


class Seeing(nn.Module):
    """A depthwise and a pointwise convolution, and the types that came out of them."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.pointwise = nn.Conv2d(4, 8, 1)
        self.types = []

    def forward(self, images):
        maps = self.depthwise(images)
        out = self.pointwise(maps)
        self.types.append((maps.dtype, out.dtype))
        return out


def test_only_depthwise_convolutions_stay_in_fp32_and_only_inside():
    network, images = Seeing(), torch.randn(2, 4, 8, 8)
    with autocast("bf16", CPU):
        network(images)
        with depthwise_in_fp32(network, CPU):
            network(images).sum().backward()
        network(images)
    half = (torch.bfloat16, torch.bfloat16)
    assert network.types == [half, (torch.float32, torch.bfloat16), half]
    assert network.depthwise.weight.grad is not None


def test_a_failing_pass_leaves_autocast_as_it_was():
    network = Seeing()
    with autocast("bf16", CPU), depthwise_in_fp32(network, CPU):
        with pytest.raises(RuntimeError):
            network(torch.randn(2, 5, 8, 8))
        assert torch.is_autocast_enabled("cpu")
        network(torch.randn(2, 4, 8, 8))
    assert network.types == [(torch.float32, torch.bfloat16)]
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_the_requested_precision_is_used():
    assert training_precision("fp32", CPU) == "fp32"
    assert training_precision("bf16", CPU) == "bf16"
    assert training_precision("auto", CPU) in {"fp32", "bf16"}
    assert training_precision("auto", torch.device("meta")) == "fp32"

"""Synchronized BatchNorms are in a copy of the network that shares all tensors with the one that is saved."""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tlcli.training.tail.distributed import _synchronized


def test_synchronized_norms_share_all_tensors_with_the_network_that_is_saved():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), BatchNormAct2d(5))
    kinds = [type(module) for module in network]
    shared = _synchronized(network)
    assert [type(module).__name__ for module in shared] == ["Conv2d", "SyncBatchNorm", "Conv2d", "SyncBatchNormAct"]
    assert [type(module) for module in network] == kinds, "the network that is saved, and predicts, is unchanged"
    before = network[1].running_mean.clone()
    images = torch.randn(6, 3, 9, 9) + 1
    shared.train()(images).sum().backward()  # of one process, for which no other is asked
    assert not torch.equal(network[1].running_mean, before)
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network.eval()(images), shared.eval()(images))

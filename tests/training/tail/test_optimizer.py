"""The optimizer of a tail: what decays, how fast each layer learns, and when."""

import pytest
import torch
from torch import nn

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.training.tail.optimizer import make_optimizer, schedule, set_learning_rate


@pytest.fixture(scope="module")
def lite():
    """The default network with random weights, for the names of its parameters."""
    return load_backbone("tf_efficientnet_lite0", "none", classes=3, size=32)


def groups_of(network, **changes):
    """The optimizer's group of each parameter, by name."""
    optimizer = make_optimizer(network, **({"weight_decay": 0.05, "layer_decay": 0.9} | changes))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: group_of[id(p)] for name, p in network.named_parameters() if id(p) in group_of}


def test_weights_decay_but_biases_and_norms_do_not(lite):
    cut_at(lite, "none")
    for name, group in groups_of(lite.model).items():
        single = name.endswith(".bias") or "bn" in name
        assert group["weight_decay"] == (0 if single else 0.05), name


def test_parameters_that_the_network_exempts_do_not_decay():
    """Position embeddings have two or more dimensions, but are not weights."""
    network = nn.Linear(3, 2)
    network.position = nn.Parameter(torch.zeros(1, 4, 3))
    network.pretrained_cfg = {"classifier": "head"}
    assert groups_of(network)["position"]["weight_decay"] == 0.05
    network.no_weight_decay = lambda: {"position"}
    assert groups_of(network)["position"]["weight_decay"] == 0


def test_layers_learn_slower_towards_the_input(lite):
    cut_at(lite, "none")
    groups = groups_of(lite.model)
    names = ["conv_stem.weight", "blocks.0.0.conv_pw.weight", "blocks.3.0.conv_pw.weight", "classifier.weight"]
    scales = [groups[name]["lr_scale"] for name in names if name in groups]
    assert scales == sorted(scales)
    assert len(set(scales)) == len(scales)
    assert groups["classifier.weight"]["lr_scale"] == 1
    assert all(0 < group["lr_scale"] <= 1 for group in groups.values())
    assert {group["lr_scale"] for group in groups_of(lite.model, layer_decay=1.0).values()} == {1}


def test_no_parameter_is_forgotten_and_frozen_ones_are_left_out(lite):
    cut_at(lite, "none")
    assert groups_of(lite.model).keys() == dict(lite.model.named_parameters()).keys()
    cut = cut_at(lite, "blocks.4")
    groups = groups_of(lite.model)
    assert groups.keys() == dict(cut.tail.named_parameters()).keys()
    assert groups.keys() == {name for name, p in lite.model.named_parameters() if p.requires_grad}
    assert groups["classifier.weight"]["lr_scale"] == 1


def test_the_depth_of_the_cut_changes_no_layers_learning_rate(lite):
    cut_at(lite, "none")
    whole = {name: group["lr_scale"] for name, group in groups_of(lite.model).items()}
    cut_at(lite, "blocks.4")
    for name, group in groups_of(lite.model).items():
        assert group["lr_scale"] == whole[name], name


def test_learning_rates_are_shares_of_the_heads(lite):
    cut_at(lite, "none")
    optimizer = make_optimizer(lite.model, weight_decay=0.05, layer_decay=0.5)
    set_learning_rate(optimizer, 0.25)
    set_learning_rate(optimizer, 0.125)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.125 * group["lr_scale"]


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (1000, 100), (50, 1)])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing(steps, warmup):
    rates = [schedule(step, steps, warmup) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == 1
    assert top == warmup - 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[0] <= 1 / warmup
    assert 0 < rates[-1] < 0.01
    half = rates[(warmup + steps) // 2]
    assert half == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_learn_in_every_step(steps):
    assert all(0 < schedule(step, steps, 1) <= 1 for step in range(steps))

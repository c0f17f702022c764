"""Backbones are loaded and listed by name."""

import pytest
import torch

from tlcli.backbones.heads import head_modules
from tlcli.backbones.zoo import list_backbones, load_backbone
from tlcli.errors import UsageError


def test_the_new_head_depends_on_the_seed():
    first, second, third = (head_modules(load_backbone(classes=7, seed=s).model)[0].weight for s in (0, 0, 1))
    assert first.shape == (7, 1280)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_random_layers_do_not_depend_on_the_number_of_classes():
    states = [load_backbone("resnet18", "none", classes=classes).model.state_dict() for classes in (3, 7)]
    for name, tensor in states[0].items():
        assert name.startswith("fc.") or torch.equal(tensor, states[1][name]), name


def test_random_weights_restore_the_global_generator():
    state = torch.get_rng_state()
    first = load_backbone("lenet5", "none", classes=3, seed=5).model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = load_backbone("lenet5", "none", classes=3, seed=5).model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_unknown_name_lists_the_closest_names():
    with pytest.raises(UsageError, match="resnet18"):
        load_backbone("resnet-18", "none")
    with pytest.raises(UsageError, match="no backbone"):
        load_backbone("resnet18.no_such_tag", "none")


def test_an_unsupported_size_lists_supported_sizes():
    with pytest.raises(UsageError, match="192, 224"):
        load_backbone("maxvit_rmlp_pico_rw_256", "none", size=200)


def test_list_backbones():
    lines = {line.name: line for line in list_backbones("*lite0*")}
    assert lines["tf_efficientnet_lite0"].local
    assert lines["tf_efficientnet_lite0"].parameters == 4_652_008
    assert {line.name for line in list_backbones("lenet5")} == {"lenet5"}
    assert len(list_backbones()) > 500
    assert list_backbones("no such thing") == []

"""Which changes of a network and its input change the fingerprint."""

import json
import string
from dataclasses import replace

import pytest
import torch
from torch import nn

from tlcli.features.fingerprint import differences, fingerprint, ingredients, weights_digest


@pytest.fixture
def content(small):
    return ingredients(
        backbone="tiny", weights="ab" * 32, layer=3, layer_name="blocks.2", preprocessing=small, numerics="fp32"
    )


def test_a_fingerprint_is_a_name_for_a_folder(content):
    name = fingerprint(content)
    assert len(name) == 32
    assert set(name) <= set(string.hexdigits.lower())


def test_the_order_of_keys_and_a_trip_through_json_change_nothing(content):
    assert fingerprint(dict(reversed(content.items()))) == fingerprint(content)
    assert fingerprint(json.loads(json.dumps(content))) == fingerprint(content)
    assert differences(json.loads(json.dumps(content)), content) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"backbone": "other"}, "backbone"),
        ({"weights": "cd" * 32}, "weights"),
        ({"layer": 4}, "cut.layer"),
        ({"layer_name": "head"}, "cut.name"),
        ({"numerics": "fp16"}, "numerics"),
    ],
)
def test_every_ingredient_counts_and_is_named(content, small, change, named):
    mine = {
        "backbone": "tiny",
        "weights": "ab" * 32,
        "layer": 3,
        "layer_name": "blocks.2",
        "preprocessing": small,
        "numerics": "fp32",
    }
    other = ingredients(**mine | change)
    assert fingerprint(other) != fingerprint(content)
    assert differences(content, other) == [named]


@pytest.mark.parametrize(
    "change",
    [
        {"height": 32},
        {"width": 32},
        {"channels": 1},
        {"fit": "pad"},
        {"crop_fraction": 0.9},
        {"interpolation": "bicubic"},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
    ],
)
def test_every_part_of_the_preprocessing_counts_and_is_named(content, small, change):
    other = content | {"preprocessing": replace(small, **change).to_json()}
    assert fingerprint(other) != fingerprint(content)
    assert differences(content, other) == [f"preprocessing.{next(iter(change))}"]


def test_an_ingredient_that_one_lacks_is_a_difference(content):
    other = {key: value for key, value in content.items() if key != "numerics"}
    assert differences(content, other) == differences(other, content) == ["numerics"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def digest_of(prefix):
    return weights_digest(prefix, [nn.Linear(3, 2)])


def test_equal_weights_have_one_digest():
    assert digest_of(network()) == digest_of(network())
    assert digest_of(network().train()) == digest_of(network().eval())


@pytest.mark.parametrize("name", network().state_dict())
def test_every_parameter_and_buffer_counts(name):
    changed = network()
    changed.state_dict()[name].view(-1)[-1:] += 1
    assert digest_of(changed) != digest_of(network())


def test_types_shapes_and_names_count():
    digests = {
        digest_of(network()),
        digest_of(network().double()),
        digest_of(nn.Sequential(nn.Identity(), *network())),
        digest_of(nn.ParameterList([torch.zeros(6)])),
        digest_of(nn.ParameterList([torch.zeros(2, 3)])),
        digest_of(nn.ParameterList([torch.zeros(3, 2)])),
    }
    assert len(digests) == 6


def test_how_weights_lie_in_memory_does_not_count():
    one = nn.Conv2d(3, 4, 3)
    two = nn.Conv2d(3, 4, 3)
    two.load_state_dict(one.state_dict())
    two.to(memory_format=torch.channels_last)
    assert digest_of(one) == digest_of(two)


def test_a_head_that_the_prefix_carries_along_does_not_count():
    def with_head(seed):
        prefix = network()
        torch.manual_seed(seed)
        prefix.append(nn.Linear(3, 2))
        return weights_digest(prefix, [prefix[-1]])

    assert with_head(1) == with_head(2)

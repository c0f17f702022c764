"""The comparison of backbones and its time limit."""

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.training.choices import backbone
from tlcli.training.choices.backbone import compare_backbones
from tlcli.training.choices.comparison import Measured
from tlcli.training.choices.subset import Subset

LOSSES = {"own": 1.0, "same": 1.0, "better": 0.5, "slower": 0.5}


def open_named(name):
    if name == "map":
        raise UsageError("no vector enters its head")
    return name


@pytest.fixture
def compare(monkeypatch, report):
    noise = np.random.default_rng(0).normal(size=50) / 100
    losses = {name: loss + noise * number for number, (name, loss) in enumerate(LOSSES.items())}
    monkeypatch.setattr(backbone, "measure", lambda name, *_: Measured(losses=losses[name], accuracy=0.5))
    keys = tuple(map(str, range(50)))
    subset = Subset(samples=(None,) * 50, digests=(b"",) * 50, keys=keys, classes=2, seed=0)
    return lambda names, **options: compare_backbones(names, open_named, subset, None, report=report, **options)


def test_ties_go_to_the_faster_one(compare):
    assert compare(list(LOSSES)).chosen == "better"
    assert compare(["own", "same"]).chosen == "own"


def test_networks_without_a_vector_of_features_are_skipped(compare):
    found = compare(["own", "map", "better"])
    assert found.chosen == "better"
    assert found.skipped == {"map": "no vector enters its head"}


def test_the_first_is_compared_whatever_the_limit(compare):
    found = compare(["own", "better"], seconds=0)
    assert found.chosen == "own"
    assert [row.value for row in found.tried] == ["own"]
    assert list(found.skipped) == ["better"]

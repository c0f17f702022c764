"""Which weights of a tail are kept, and what stops its training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tail_trainers import CLASSES, Network, assert_same, fit, make_trainer, state_of, with_recipe
from torch import nn


def ruin(network, after):
    """Yields unchanged inputs, but destroys the head in the epochs after one."""

    def spoil(inputs, epoch, _):
        if epoch > after:
            with torch.no_grad():
                network.head.weight.zero_()
                network.head.bias.zero_()
        return inputs

    return spoil


def test_the_best_epochs_weights_are_kept_bit_for_bit():
    network = Network()
    trainer, _ = make_trainer(network=network, spoil=ruin(network, 1), recipe=with_recipe(epochs=5))
    ends = []
    judgment, stopped = fit(trainer, on_epoch=lambda _: ends.append(state_of(network)))
    losses = [line["validation_loss"] for line in trainer.state.lines]
    best = int(np.argmin(losses))
    assert best <= 1
    assert trainer.state.best_epoch == best
    assert stopped is None
    assert_same(state_of(network), ends[best])
    assert judgment.loss == losses[best]
    assert judgment.accuracy == trainer.state.lines[best]["validation_accuracy"]


def test_the_start_is_kept_if_no_epoch_helps():
    network = Network()
    trainer, _ = make_trainer(network=network, spoil=ruin(network, -1))
    perfect = np.argmax(trainer.evaluate().logits, axis=1)
    trainer, _ = make_trainer(network=network, spoil=ruin(network, -1), validation_labels=perfect)
    before = state_of(network)
    fit(trainer)
    assert trainer.state.best_epoch == -1
    assert_same(state_of(network), before)


def test_patience_stops():
    network = Network()
    trainer, _ = make_trainer(network=network, spoil=ruin(network, 1), recipe=with_recipe(epochs=9, patience=2))
    fit(trainer)
    assert len(trainer.state.lines) == trainer.state.best_epoch + 1 + 2
    assert len(trainer.state.lines) < 9


def not_a_number(epoch, step, value=float("nan")):
    """Inputs that make the loss NaN in one step."""
    return lambda inputs, at, index: inputs * value if (at, index) == (epoch, step) else inputs


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_a_nan_loss_stops_before_the_step(value):
    trainer, network = make_trainer(spoil=not_a_number(1, 2, value))
    seen = []
    ends = []
    judgment, stopped = fit(trainer, on_step=seen.append, on_epoch=lambda _: ends.append(state_of(network)))
    assert stopped == "epoch 2, step 3"
    assert len(seen) == 4 + 2
    assert len(trainer.state.lines) == 1
    assert all(torch.isfinite(tensor).all() for tensor in state_of(network).values())
    assert trainer.state.best_epoch in {-1, 0}
    if trainer.state.best_epoch == 0:
        assert_same(state_of(network), ends[0])
    assert np.isfinite(judgment.loss)


def test_an_immediate_nan_loss_leaves_the_start():
    trainer, network = make_trainer(spoil=not_a_number(0, 0))
    before = state_of(network)
    _, stopped = fit(trainer)
    assert stopped == "epoch 1, step 1"
    assert_same(state_of(network), before)


def test_a_nan_gradient_stops_training():
    """sqrt at 0: the loss is finite, but its gradient is not."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.pretrained_cfg = {"classifier": "head"}
            self.head = nn.Linear(3, CLASSES)

        def forward(self, images):
            return self.head(images.mean((2, 3))).square().sqrt()

    network = Root()
    with torch.no_grad():
        network.head.bias.zero_()
    before = state_of(network)
    trainer, _ = make_trainer(network=network, spoil=lambda inputs, *_: inputs * 0)
    _, stopped = fit(trainer)
    assert stopped == "epoch 1, step 1"
    assert_same(state_of(network), before)


def test_an_epoch_with_a_nan_validation_loss_is_not_the_best():
    """Weights so large that logits overflow."""
    network = Network()

    def spoil(inputs, epoch, index):
        if (epoch, index) == (2, 0):
            with torch.no_grad():
                network.bn1.running_var.fill_(float("nan"))
        return inputs

    trainer, _ = make_trainer(network=network, spoil=spoil)
    judgment, _ = fit(trainer)
    assert np.isfinite(judgment.loss)
    assert trainer.state.best_epoch < 2
    assert all(torch.isfinite(tensor).all() for tensor in state_of(network).values())
    json.dumps(trainer.state.lines)

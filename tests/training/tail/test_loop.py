"""Training a tail on made-up numbers: the loss, the steps, and what they change."""

from __future__ import annotations

import copy

import pytest
import torch
from tail_trainers import CLASSES, RECIPE, TRAIN, Fake, fit, images, make_trainer, seeded_network, state_of, with_recipe
from torch import nn

from tlcli.training.head.class_weights import ClassWeighting


def test_it_learns():
    trainer, _ = make_trainer(recipe=with_recipe(epochs=12), network=seeded_network(0.0))
    before = trainer.evaluate()
    after, _ = fit(trainer)
    assert after.loss < before.loss
    assert after.accuracy > 0.8
    assert trainer.state.lines[-1]["train_loss"] < trainer.state.lines[0]["train_loss"]


def test_the_loss_is_smoothed_cross_entropy():
    """The loss of the first step, before any update, computed by hand."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES))
    network.pretrained_cfg = {"classifier": "1"}
    start = copy.deepcopy(network)
    trainer, _ = make_trainer(network=network, recipe=with_recipe(epochs=1, batch_size=TRAIN))
    fit(trainer)
    inputs, labels = images(TRAIN, 1)
    shares = torch.log_softmax(start(inputs), 1)
    target = torch.full_like(shares, 0.1 / CLASSES)
    target[torch.arange(TRAIN), labels] += 0.9
    expected = -(shares * target).sum(1).mean().item()
    assert trainer.state.lines[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_batches_are_split_with_the_same_result_if_memory_runs_out():
    """Without norms over the batch: the gradient of a batch is the sum of its parts'."""

    def plain():
        torch.manual_seed(3)
        network = nn.Sequential(nn.Flatten(), nn.Linear(108, 9), nn.ReLU(), nn.Linear(9, CLASSES))
        network.pretrained_cfg = {"classifier": "3"}
        return network

    def tight(module, inputs):
        if len(inputs[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    recipe, warnings = with_recipe(batch_size=7), []
    roomy, whole = make_trainer(network=plain(), recipe=recipe)
    expected, _ = fit(roomy)
    cramped, parts = make_trainer(network=plain(), recipe=recipe, options={"warn": warnings.append})
    parts.register_forward_pre_hook(tight)
    found, stopped = fit(cramped)
    assert stopped is None
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)
    assert warnings == ["cpu ran out of memory; continuing with 3 images at a time."]


def test_gradients_are_clipped():
    """With a tiny maximum norm, AdamW's epsilon exceeds the gradients, and weights hardly change."""
    recipe = with_recipe(epochs=1, weight_decay=0.0, clip=1e-12)
    clipped, network = make_trainer(recipe=recipe)
    before = state_of(network)
    moved = {}
    fit(clipped, save=lambda: moved.update(state_of(network)))
    for name, tensor in before.items():
        if "running" not in name and "num" not in name:
            torch.testing.assert_close(moved[name], tensor, atol=2e-3 * RECIPE.learning_rate, rtol=0, msg=name)
    free, network = make_trainer(recipe=with_recipe(epochs=1, weight_decay=0.0, clip=1.0))
    fit(free, save=lambda: moved.update(state_of(network)))
    assert (moved["head.weight"] - before["head.weight"]).abs().max() > 0.1 * RECIPE.learning_rate


def test_the_logged_learning_rate_falls():
    trainer, _ = make_trainer()
    fit(trainer)
    rates = [line["learning_rate"] for line in trainer.state.lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * RECIPE.learning_rate


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(make_trainer()[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_balancing_makes_the_rare_class_likelier():
    """19 images of one class and 3 of another, which are hard to distinguish."""
    labels = torch.tensor([0] * 19 + [1] * 3)
    inputs = 0.5 * labels.view(-1, 1, 1, 1) + torch.randn(22, 3, 6, 6, generator=torch.Generator().manual_seed(4))

    def said_rare(log_prior):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        network.pretrained_cfg = {"classifier": "2"}
        recipe = with_recipe(epochs=40, batch_size=22)
        trainer, _ = make_trainer(
            network=network, recipe=recipe, log_prior=log_prior,
            train=22, labels=labels, validation=Fake(inputs), validation_labels=labels.numpy(),
        )  # fmt: skip
        trainer._data.train.inputs = inputs
        judgment, _ = fit(trainer)
        return int((judgment.logits.argmax(axis=1) == 1).sum())

    plain, balanced = said_rare(None), said_rare(ClassWeighting(balance=True).log_prior(labels, 2))
    assert balanced > plain


def test_fixed_statistics_stay_while_the_norms_weights_learn():
    for fixed in (True, False):
        trainer, network = make_trainer(recipe=with_recipe(fixed_statistics=fixed))
        before, after = state_of(network), {}
        fit(trainer, save=lambda state=after, of=network: state.update(state_of(of)))
        for name in ("bn1.running_mean", "bn2.running_var", "bn1.num_batches_tracked"):
            assert torch.equal(before[name], after[name]) == fixed, name
        assert not torch.equal(before["bn1.weight"], after["bn1.weight"])

"""A tail depends on its seed alone, and a resumed one ends like an uninterrupted one."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from tail_trainers import TRAIN, assert_same, differ, fit, make_trainer, seeded_network, timeless, with_recipe

from tlcli.progress import Silent
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.loop import TrainingState


def finished_training(**changes):
    trainer, _ = make_trainer(**changes)
    judgment, _ = fit(trainer)
    return trainer, judgment


def test_the_same_seed_gives_the_same_weights():
    one, _ = finished_training()
    other, _ = finished_training()
    assert_same(one.tensors(), other.tensors())
    assert timeless(one.state.lines) == timeless(other.state.lines)


def test_another_seed_gives_other_weights():
    one, _ = finished_training()
    other, _ = finished_training(recipe=with_recipe(seed=1))
    assert differ(one.tensors(), other.tensors())


def test_dropout_is_alive_and_seeded():
    """Even if each epoch is one batch, so that the order does not matter, other seeds drop other activations."""
    changes = {"batch_size": TRAIN, "epochs": 1}
    losses = {
        dropout: [
            finished_training(network=seeded_network(dropout), recipe=with_recipe(seed=seed, **changes))[0].state.lines[
                0
            ]["train_loss"]
            for seed in (0, 0, 1)
        ]
        for dropout in (0.0, 0.5)
    }
    assert losses[0.0][0] == losses[0.0][1] == pytest.approx(losses[0.0][2], abs=1e-6)
    assert losses[0.5][0] == losses[0.5][1] != pytest.approx(losses[0.5][2], abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"patience": 1}, {"precision": "bf16"}, {"precision": "fp16"}, {"fixed_statistics": True}],
    ids=str,
)
def test_interrupted_after_any_step_it_ends_as_if_it_never_stopped(tmp_path, changes):
    recipe = with_recipe(**changes)
    trainer, network = make_trainer(recipe=recipe)
    saved = []

    def save():
        path = tmp_path / f"{len(saved)}"
        (path / "run").mkdir(parents=True)
        checkpoints = Checkpoints(path / "run" / "checkpoint", {}, resume=False, report=Silent())
        checkpoints.save_if_due(lambda: (asdict(trainer.state), trainer.tensors()), now=True)
        saved.append(path)

    judgment, _ = fit(trainer, save=save)
    assert len(saved) == len(trainer.state.lines) * 5, "after each of four steps, and after the epoch"
    for number, path in enumerate(saved):
        content, tensors = Checkpoints(path / "run" / "checkpoint", {}, resume=True, report=Silent()).latest()
        resumed, other = make_trainer(recipe=recipe, init=number + 1)  # nothing may come from how it begins
        resumed.load(TrainingState(**content), tensors)
        again, stopped = fit(resumed)
        assert stopped is None
        assert_same(network.state_dict(), other.state_dict())
        assert_same(trainer.tensors(), resumed.tensors())
        assert timeless(resumed.state.lines) == timeless(trainer.state.lines)
        assert resumed.state.best_epoch == trainer.state.best_epoch
        np.testing.assert_array_equal(again.logits, judgment.logits)
        assert again.temperature == judgment.temperature


def test_resuming_a_finished_training_does_nothing(tmp_path):
    trainer, network = make_trainer()
    fit(trainer)
    state, tensors = TrainingState(**json.loads(json.dumps(asdict(trainer.state)))), trainer.tensors()
    resumed, other = make_trainer(init=5)
    resumed.load(state, tensors)
    assert resumed.steps_left() == 0
    fit(resumed, on_step=lambda _: pytest.fail("no step is left"))
    assert_same(network.state_dict(), other.state_dict())


def test_steps_left_counts_down_to_nothing():
    trainer, _ = make_trainer()
    left = [trainer.steps_left()]
    fit(trainer, on_step=lambda _: left.append(trainer.steps_left()))
    assert left[0] == 12
    assert left == list(range(12, -1, -1))

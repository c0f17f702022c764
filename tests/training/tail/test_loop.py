"""Training a tail on made-up numbers: which weights are kept, what stops it, and that a resumed one is the same."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from tlcli.progress import Silent
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail.batches import batches_of
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.loop import TailTrainer, TrainingData, TrainingState
from tlcli.training.tail.recipe import Recipe

RECIPE = Recipe(
    epochs=3,
    batch_size=4,
    learning_rate=0.02,
    weight_decay=0.05,
    layer_decay=0.9,
    label_smoothing=0.1,
    warmup=0.1,
    clip=1.0,
    patience=None,
    seed=0,
    precision="fp32",
    fixed_statistics=False,
)
TRAIN, VALIDATION, CLASSES = 14, 9, 3


class Network(nn.Module):
    """Convolutions, norms and dropout: the kinds of layers that have state."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.pretrained_cfg = {"classifier": "head"}
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3)
        self.bn2 = nn.BatchNorm1d(5)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, images):
        maps = self.bn1(self.conv1(images)).relu()
        vector = self.bn2(self.conv2(maps).mean((2, 3)))
        return self.head(self.dropout(vector.relu()))


class Fake:
    """Inputs held in memory; `spoil` changes a batch, given the epoch and the number of the batch in it."""

    waited = 0.0

    def __init__(self, inputs, spoil=None):
        self.inputs = inputs
        self.spoil = spoil
        self.served = []

    def load(self, batches, epoch):
        whole = -(-len(self.inputs) // RECIPE.batch_size)
        for index, batch in enumerate(batches, max(0, whole - len(batches))):
            rows = torch.tensor(batch)
            self.served.append((epoch, tuple(batch)))
            inputs = self.inputs[rows]
            yield rows, self.spoil(inputs, epoch, index) if self.spoil else inputs


def images(count, seed):
    """Labels, and noise around a mean of each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    means = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(99))
    return means[labels] + 0.7 * torch.randn(count, 3, 6, 6, generator=generator), labels


def make_trainer(
    *, recipe=RECIPE, train=TRAIN, spoil=None, network=None, log_prior=None, init=0, options=None, **changes
):
    """A trainer of a new network, and the source of its batches."""
    with torch.random.fork_rng():
        torch.manual_seed(init)
        network = network or Network()
    inputs, labels = images(train, 1)
    validation_inputs, validation_labels = images(VALIDATION, 2)
    source = Fake(inputs, spoil)
    given = {
        "train": source,
        "labels": labels,
        "validation": Fake(validation_inputs),
        "validation_labels": validation_labels.numpy(),
    } | changes
    data = TrainingData(**given, log_prior=log_prior)
    trainer = TailTrainer(network, network, data, recipe=recipe, device=torch.device("cpu"), **options or {})
    return trainer, network


def with_recipe(**changes):
    return Recipe(**{name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__} | changes)


def fit(trainer, save=lambda: None, on_step=lambda _: None, on_epoch=lambda _: None):
    return trainer.fit(save=save, on_step=on_step, on_epoch=on_epoch)


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def differ(one, other):
    return any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def timeless(lines):
    return [{name: line[name] for name in line if name not in {"seconds", "waited"}} for line in lines]


# batches


@pytest.mark.parametrize(("count", "size"), [(33, 32), (3, 2), (14, 4), (32, 32), (1, 8), (5, 8), (65, 32), (9, 2)])
def test_an_epoch_shows_every_image_once_and_no_batch_is_of_one(count, size):
    batches = batches_of(count, size, seed=3, epoch=5)
    assert sorted(row for batch in batches for row in batch) == list(range(count))
    assert all(len(batch) > 1 for batch in batches) or count == 1
    assert all(len(batch) <= size + 1 for batch in batches)


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {(seed, epoch): batches_of(50, 8, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)}
    assert orders == {(seed, epoch): batches_of(50, 8, seed=seed, epoch=epoch) for seed, epoch in orders}
    assert len({str(order) for order in orders.values()}) == 9
    assert all(order != sorted(order) for order in orders.values())


@pytest.mark.parametrize(("count", "size"), [(33, 32), (3, 2)])
def test_a_single_image_at_the_end_breaks_no_norm(count, size):
    trainer, network = make_trainer(train=count, recipe=with_recipe(batch_size=size, epochs=1))
    before, moved = state_of(network), {}
    _, stopped = fit(trainer, save=lambda: moved.update(state_of(network)))
    assert stopped is None
    assert trainer.state.lines[0]["pictures"] == count
    assert differ(before, moved)


def test_every_epoch_learns_from_every_image():
    trainer, _ = make_trainer()
    source = trainer._data.train
    fit(trainer)
    for epoch in range(RECIPE.epochs):
        assert sorted(row for at, batch in source.served if at == epoch for row in batch) == list(range(TRAIN))
    assert [line["pictures"] for line in trainer.state.lines] == [TRAIN] * RECIPE.epochs


# learning


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


# what is kept, and what stops it


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


# determinism, and going on


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


def seeded_network(dropout):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(dropout)


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


# images that vanish


class Losing(Fake):
    """Leaves out some rows, as a source does whose images vanish."""

    def __init__(self, inputs, lost):
        super().__init__(inputs)
        self.lost = lost

    def load(self, batches, epoch):
        for rows, inputs in super().load(batches, epoch):
            kept = torch.tensor([int(row) not in self.lost for row in rows])
            yield rows[kept], inputs[kept]


def test_lost_images_are_left_out_of_the_epoch():
    inputs, _ = images(TRAIN, 1)
    trainer, _ = make_trainer(train=TRAIN)
    trainer._data = replace(trainer._data, train=Losing(inputs, {0, 5, 6}))
    _, stopped = fit(trainer)
    assert stopped is None
    assert all(TRAIN - 4 <= line["pictures"] <= TRAIN - 3 for line in trainer.state.lines)


def test_a_batch_of_which_nothing_or_one_is_left_is_no_step(tmp_path):
    first = batches_of(TRAIN, RECIPE.batch_size, seed=0, epoch=0)
    inputs, _ = images(TRAIN, 1)
    trainer, _ = make_trainer(recipe=with_recipe(epochs=1))
    trainer._data = replace(trainer._data, train=Losing(inputs, {*first[0], *first[1][1:]}))
    fit(trainer)
    assert trainer.state.lines[0]["pictures"] == TRAIN - 8


def test_all_validation_images_must_be_readable():
    from tlcli.errors import DataError

    validation_inputs, _ = images(VALIDATION, 2)
    for lost, message in (
        ({3}, f"1 of {VALIDATION} validation images changed or vanished"),
        (set(range(VALIDATION)), f"all {VALIDATION} images to evaluate on changed or vanished"),
    ):
        trainer, _ = make_trainer(validation=Losing(validation_inputs, lost))
        with pytest.raises(DataError, match=message):
            fit(trainer)

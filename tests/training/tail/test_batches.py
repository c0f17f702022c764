"""The batches of an epoch: each image once, no batch of one image, and images that vanish."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tail_trainers import RECIPE, TRAIN, VALIDATION, Fake, differ, fit, images, make_trainer, state_of, with_recipe

from tlcli.training.tail.batches import batches_of


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

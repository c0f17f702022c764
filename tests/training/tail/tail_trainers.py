"""Trainers of small networks on made-up numbers, and comparisons of what they trained."""

from __future__ import annotations

import torch
from torch import nn

from tlcli.training.tail.loop import TailTrainer, TrainingData
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


def seeded_network(dropout):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(dropout)

"""A run's network in torch."""

import numpy as np
import pytest
from torch import nn

from tlcli.inference.torch_model import TorchModel
from tlcli.runs.run import load_run


class OutOfMemoryAbove(nn.Module):
    """A network that runs out of memory on batches of more than `room` images."""

    def __init__(self, inner, room):
        super().__init__()
        self.inner, self.room = inner, room

    def forward(self, batch):
        if len(batch) > self.room:
            raise MemoryError
        return self.inner(batch)


@pytest.mark.slow
def test_batches_are_split_when_memory_runs_out(trained, report):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3)).astype(np.uint8)
    network = TorchModel(load_run(trained.run), "auto", None, report)
    whole = network.run(pixels)
    network._tail, network._prefix._prefix = (
        OutOfMemoryAbove(network._tail, 2),
        OutOfMemoryAbove(network._prefix._prefix, 4),
    )
    for found, expected in zip(network.run(pixels), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    sizes = [int(warning.split("continuing with ")[1].split()[0]) for warning in report.warnings]
    assert sizes == [4, 4, 1], "once for the prefix, twice for the tail"

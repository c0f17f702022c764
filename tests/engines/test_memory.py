"""Memory that runs out: batches become smaller, once and for all, and what comes out is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tlcli.engines.memory import Halving
from tlcli.engines.torch_engine import PrefixRunner
from tlcli.errors import MachineError

CPU = torch.device("cpu")
OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
)


class Tight(nn.Module):
    """A network with memory for so many images."""

    def __init__(self, inner, most, error=OUT_OF_MEMORY[0]):
        super().__init__()
        self.inner, self.most, self.error, self.seen = inner, most, error, []

    def forward(self, inputs):
        self.seen.append(len(inputs))
        if len(inputs) > self.most:
            raise self.error
        return self.inner(inputs)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "torch on a CPU"])
def test_features_are_the_same_and_smaller_batches_are_said_once(error):
    inner, told = nn.Flatten(), []
    pixels = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3)).astype(np.uint8)
    whole = PrefixRunner(inner, (0.5,) * 3, (0.5,) * 3, device=CPU, precision="fp32").features(pixels)
    tight = Tight(inner, 5, error)
    runner = PrefixRunner(tight, (0.5,) * 3, (0.5,) * 3, device=CPU, precision="fp32", warn=told.append)
    torch.testing.assert_close(runner.features(pixels), whole, rtol=0, atol=0)
    assert tight.seen == [11, 3, 4, 4]
    assert told == ["cpu ran out of memory; going on with 5 images at a time."]
    torch.testing.assert_close(runner.features(pixels), whole, rtol=0, atol=0)
    assert tight.seen[4:] == [3, 4, 4], "it isn't tried again"
    assert len(told) == 1


def test_memory_for_not_even_one_image_is_an_error_with_a_remedy():
    with pytest.raises(MachineError, match=r"no memory for 1 images at a time. Use a smaller --size"):
        Halving(CPU, lambda _: None).run(lambda part: Tight(nn.Identity(), 0)(torch.zeros(8)[part]), 8)


def test_other_errors_are_no_matter_of_memory():
    tight = Tight(nn.Identity(), 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        Halving(CPU, lambda _: None).run(lambda part: tight(torch.zeros(8)[part]), 8)
    assert tight.seen == [8]


@pytest.mark.parametrize("count", range(2, 40))
def test_parts_hold_every_image_once_and_at_least_two_where_that_is_asked(count):
    for fits in range(3, 12):
        halving, parts = Halving(CPU, lambda _: None, least=2), []

        def take(part, fits=fits, parts=parts):
            if part.start == 0:
                parts.clear()
            if part.stop - part.start > fits:
                raise MemoryError
            parts.append(part)

        halving.run(take, count)
        assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
        assert all(part.stop - part.start >= 2 for part in parts)

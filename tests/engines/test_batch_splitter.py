"""When memory runs out, batches become smaller for good, and the results stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.torch_engine import TorchRunner
from tlcli.errors import MachineError
from tlcli.images.preprocess import display_preprocessing

CPU = torch.device("cpu")
OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
)


class Tight(nn.Module):
    """A network that runs out of memory above `most` images."""

    def __init__(self, inner, most, error=OUT_OF_MEMORY[0]):
        super().__init__()
        self.inner, self.most, self.error, self.seen = inner, most, error, []

    def forward(self, inputs):
        self.seen.append(len(inputs))
        if len(inputs) > self.most:
            raise self.error
        return self.inner(inputs)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "torch on a CPU"])
def test_smaller_batches_give_the_same_features_and_one_warning(error):
    inner, warnings = nn.Flatten(), []
    pixels = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3)).astype(np.uint8)
    whole = TorchRunner(inner, display_preprocessing(4), device=CPU, precision="fp32").features(pixels)
    tight = Tight(inner, 5, error)
    runner = TorchRunner(tight, display_preprocessing(4), device=CPU, precision="fp32", warn=warnings.append)
    torch.testing.assert_close(runner.features(pixels), whole, rtol=0, atol=0)
    assert tight.seen == [11, 3, 4, 4]
    assert warnings == ["cpu ran out of memory; continuing with 5 images at a time."]
    torch.testing.assert_close(runner.features(pixels), whole, rtol=0, atol=0)
    assert tight.seen[4:] == [3, 4, 4], "a size that failed is not tried again"
    assert len(warnings) == 1


def test_too_little_memory_for_one_image_is_an_error_with_a_remedy():
    with pytest.raises(MachineError, match=r"not have enough memory for a batch of 1. Use a smaller --size"):
        BatchSplitter(CPU, lambda _: None).run(lambda part: Tight(nn.Identity(), 0)(torch.zeros(8)[part]), 8)


def test_other_errors_do_not_split_the_batch():
    tight = Tight(nn.Identity(), 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        BatchSplitter(CPU, lambda _: None).run(lambda part: tight(torch.zeros(8)[part]), 8)
    assert tight.seen == [8]


@pytest.mark.parametrize("count", range(2, 40))
def test_parts_hold_every_image_once_and_at_least_min_size_images(count):
    for fits in range(3, 12):
        splitter, parts = BatchSplitter(CPU, lambda _: None, min_size=2), []

        def take(part, fits=fits, parts=parts):
            if part.start == 0:
                parts.clear()
            if part.stop - part.start > fits:
                raise MemoryError
            parts.append(part)

        splitter.run(take, count)
        assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
        assert all(part.stop - part.start >= 2 for part in parts)

"""Compiled training: when it is chosen, that it trains the same weights, and what happens if it fails."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from tlcli.training.tail.compilation import COMPILE_FROM, CompiledIfPossible, pick_compiled

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "work", "compiled"),
    [(CUDA, COMPILE_FROM, True), (CUDA, COMPILE_FROM - 1e9, False), (CPU, 1e20, False), (CUDA, 1e13, False)],
)
def test_only_long_trainings_on_cuda_are_compiled(device, work, compiled):
    assert pick_compiled(device, work) is compiled


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))


def losses(training_pass, tail, batches=(5, 5, 3)):
    """Return the losses of a few steps, the last one with a smaller batch."""
    optimizer = torch.optim.SGD(tail.parameters(), lr=0.1)
    generator, found = torch.Generator().manual_seed(1), []
    for size in batches:
        inputs, labels = torch.randn(size, 3, 8, 8, generator=generator), torch.arange(size) % 3

        def gradients(forward, inputs=inputs, labels=labels):
            loss = nn.functional.cross_entropy(forward(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            return loss.item()

        found.append(training_pass.run(gradients))
        optimizer.step()
    return found


@pytest.mark.slow
def test_a_compiled_tail_trains_the_same_weights(monkeypatch):
    """The graph is captured and differentiated ahead of time; only the code generator for GPUs is left out."""
    graphs = []

    def backend(graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    compiled, plain, warnings = network(), network(), []
    ours = losses(CompiledIfPossible(compiled, compiled=True, warn=warnings.append), compiled)
    assert len(graphs) == 2, "one for each size of a batch"
    assert not warnings
    expected = losses(CompiledIfPossible(plain, compiled=False, warn=warnings.append), plain)
    assert ours == pytest.approx(expected, abs=1e-5)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor)
    torch.compiler.reset()


def test_a_tail_that_cannot_be_compiled_trains_uncompiled_with_one_warning(monkeypatch):
    def backend(graph, inputs):
        raise NotImplementedError("no code for this")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    tail, plain, warnings = network(), network(), []
    ours = losses(CompiledIfPossible(tail, compiled=True, warn=warnings.append), tail)
    assert len(warnings) == 1
    assert "torch.compile failed" in warnings[0]
    assert ours == losses(CompiledIfPossible(plain, compiled=False, warn=warnings.append), plain)
    torch.compiler.reset()


def test_an_error_of_the_training_itself_is_not_taken_for_the_compilers():
    def broken(forward):
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        CompiledIfPossible(network(), compiled=True, warn=lambda _: None).run(broken)

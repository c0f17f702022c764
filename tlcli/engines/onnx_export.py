"""A frozen prefix in ONNX Runtime: on a CPU several times as fast as torch, once it is exported.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tlcli.engines.onnx_session import OnnxSession, UnloadableError
from tlcli.engines.torch_engine import normalization
from tlcli.interrupts import aside
from tlcli.storage.files import keep, kept

TOLERANCE = 0.01
"""Largest difference between what ONNX Runtime and torch give for an image, as a share of its norm: the cosine is at
least 0.99995. An export beyond it is not used."""
LARGEST = 2_000_000_000
"""Bytes of weights above which ONNX wants a second file, and torch is used."""


class ExportError(Exception):
    """A network that can't be exported, or doesn't say the same afterwards; its text is why."""


class OnnxRunner:
    """Runs an exported prefix: pixels in, features out.

    Args:
        model: From `exported`.

    Raises:
        UnloadableError: ONNX Runtime can't load it.
    """

    engine = "onnx"
    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, model: bytes) -> None:
        self._session = OnnxSession(model)
        self.map = self._session.map

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, C] to features float32 [B, ...]."""
        return torch.from_numpy(self._session.run(pixels))


class FromPixels(nn.Module):
    """A network, or its prefix, with normalization before it: pixels uint8 [B, H, W, C] in."""

    scale: Tensor
    shift: Tensor

    def __init__(self, prefix: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.prefix = prefix
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 [B, H, W, C] to what it gives."""
        features: Tensor = self.prefix(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return features


def exported(
    prefix: nn.Module,
    shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    directory: Path | None,
    exporting: Callable[[], None],
    damaged: Callable[[Path], None] = lambda _: None,
) -> bytes:
    """The prefix as an ONNX file for single images: the one in `directory`, or a new one, which is kept there.

    Args:
        prefix: float32 [B, C, H, W], normalized, to features [B, ...].
        shape: (H, W, C).
        mean: A channel's mean, of pixels in [0, 1].
        std: A channel's standard deviation, of pixels in [0, 1].
        directory: Of this prefix alone, for its export; None keeps it in memory, as does one that is read-only.
        exporting: Called before an export, which takes seconds.
        damaged: Told of a kept export whose bytes are not what they were.

    Returns:
        pixels uint8 [1, H, W, C] to features float32 [1, ...].

    Raises:
        ExportError: it can't be exported, or says something else afterwards.
    """
    stem = f"prefix-torch-{torch.__version__}"  # of what an export depends on besides the prefix
    if directory is not None and (model := kept(directory, stem, ".onnx", damaged)) is not None:
        return model
    exporting()
    model = export(prefix, shape, mean, std)
    if directory is not None:
        keep(directory, stem, ".onnx", model)
    return model


def export(network: nn.Module, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]) -> bytes:
    """A network as an ONNX file, compared with the original on random pixels.

    Args:
        network: float32 [B, C, H, W], normalized, to float32 [B, ...]; wherever it is, it stays.
        shape: (H, W, C).
        mean: A channel's mean, of pixels in [0, 1].
        std: A channel's standard deviation, of pixels in [0, 1].

    Returns:
        pixels uint8 [1, H, W, C] to float32 [1, ...].

    Raises:
        ExportError: it can't be exported, or says something else afterwards.
    """
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST:
        raise ExportError("its weights don't fit into one ONNX file")
    whole = FromPixels(network, *normalization(mean, std)).eval()
    if any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        whole = copy.deepcopy(whole).cpu()
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    model = _export(whole, torch.from_numpy(pixels[:1]))
    try:
        session = OnnxSession(model)
    except UnloadableError as error:
        raise ExportError(str(error)) from error
    _check(whole, session, pixels)
    return model


def with_head(prefix: bytes, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> bytes:
    """A linear head behind an exported prefix whose features are vectors.

    Args:
        prefix: From `exported`, with D features.
        weight: float32 [k, D].
        bias: float32 [k].

    Returns:
        pixels uint8 [1, H, W, C] to logits float32 [1, k].
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(prefix)
    graph = model.graph
    (features,) = graph.output
    graph.initializer.extend(
        [numpy_helper.from_array(weight, "head.weight"), numpy_helper.from_array(bias, "head.bias")]
    )
    graph.node.append(helper.make_node("Gemm", [features.name, "head.weight", "head.bias"], ["logits"], transB=1))
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, len(bias)])
    del graph.output[:]
    graph.output.append(logits)
    content: bytes = model.SerializeToString()
    return content


def _export(network: nn.Module, pixels: Tensor) -> bytes:
    """The network as an ONNX file, for one image: with a free number of them, the export takes twice as long."""

    def exporting() -> bytes:
        program: Any = torch.onnx.export(
            network, (pixels,), input_names=["pixels"], output_names=["features"], dynamo=True, verbose=False
        )
        file = io.BytesIO()
        program.save(file)
        return file.getvalue()

    try:
        with quietly():
            return aside(exporting)
    except Exception as error:  # whatever a network's forward and torch's exporter raise
        raise ExportError(f"torch can't export it: {type(error).__name__}") from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep exporters and those who load what they made from talking: they log, warn and print."""
    talkative = [logging.root, *map(logging.getLogger, ("torch.onnx", "torch.export", "onnxscript", "timm"))]
    levels = [logger.level for logger in talkative]
    for logger in talkative:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(talkative, levels, strict=True):
            logger.setLevel(level)


@torch.inference_mode()
def _check(network: nn.Module, session: OnnxSession, pixels: npt.NDArray[np.uint8]) -> None:
    """Compare it with torch on some pixels."""
    expected = network(torch.from_numpy(pixels)).flatten(1)
    error = torch.from_numpy(session.run(pixels)).flatten(1) - expected
    worst = (error.norm(dim=1) / expected.norm(dim=1).clamp_min(1e-12)).max().item()
    if not worst <= TOLERANCE:
        raise ExportError(f"what ONNX Runtime makes of it differs from torch by {100 * worst:.2g} %")

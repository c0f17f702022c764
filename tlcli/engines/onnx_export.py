"""Export networks to ONNX, check each export against torch, and keep it on disk.

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

from tlcli.engines.onnx_session import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    TOLERANCE,
    OnnxSession,
    UnloadableError,
    relative_difference,
)
from tlcli.engines.torch_engine import normalization
from tlcli.images.preprocess import Preprocessing
from tlcli.interrupts import run_in_thread
from tlcli.storage.files import load_checksummed, save_checksummed

MAX_WEIGHT_BYTES = 2_000_000_000
"""Bytes of weights above which ONNX needs a second file; such networks run in torch."""


class ExportError(Exception):
    """A network cannot be exported, or its export gives different results; the text is the reason."""


class WithNormalization(nn.Module):
    """A network, or its prefix, with the normalization of pixels in front.

    Args:
        prefix: float32 [B, C, H, W], normalized, to any output.
        scale: float32 [1, C, 1, 1], from `normalization`.
        shift: float32 [1, C, 1, 1], from `normalization`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, prefix: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.prefix = prefix
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the output of the network for pixels uint8 [B, H, W, C]."""
        output: Tensor | tuple[Tensor, ...] = self.prefix(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return output


def load_or_export_onnx(
    prefix: Callable[[], nn.Module],
    preprocessing: Preprocessing,
    directory: Path | None,
    *,
    on_export: Callable[[], None] = lambda: None,
    on_damage: Callable[[Path], None] = lambda _: None,
) -> bytes:
    """Return a prefix as an ONNX file for single images: the one kept in `directory`, or a new one to keep there.

    Args:
        prefix: Returns the prefix, float32 [B, C, H, W], normalized, to features [B, ...]; called before an export.
        preprocessing: How images enter the prefix.
        directory: Directory for the exports of this prefix only; None keeps nothing, as does a read-only directory.
        on_export: Called before an export, which takes seconds.
        on_damage: Called with the path of a kept export whose checksum is wrong.

    Returns:
        The ONNX file's bytes: pixels uint8 [1, H, W, C] to features float32 [1, ...].

    Raises:
        ExportError: The prefix cannot be exported, or its export gives different results.
    """
    stem = f"prefix-torch-{torch.__version__}"  # besides the prefix, an export depends on the version of torch
    if directory is not None and (model := load_checksummed(directory, stem, ".onnx", on_damage)) is not None:
        return model
    on_export()
    model = export_onnx(prefix(), preprocessing)
    if directory is not None:
        save_checksummed(directory, stem, ".onnx", model)
    return model


def export_onnx(network: nn.Module, preprocessing: Preprocessing, outputs: Sequence[str] = ("features",)) -> bytes:
    """Export a network to ONNX, and compare it with the original on random pixels.

    Args:
        network: float32 [B, C, H, W], normalized, to float32 [B, ...], or to a tuple of these. It stays on its device.
        preprocessing: How images enter the network.
        outputs: Names of the outputs.

    Returns:
        The ONNX file's bytes: pixels uint8 [1, H, W, C] to float32 [1, ...], one for each of `outputs`.

    Raises:
        ExportError: The network cannot be exported, or its export gives different results.
    """
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > MAX_WEIGHT_BYTES:
        raise ExportError("the network's weights do not fit into one ONNX file")
    whole = WithNormalization(network, *normalization(preprocessing.mean, preprocessing.std)).eval()
    if any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        whole = copy.deepcopy(whole).cpu()
    pixels = np.random.default_rng(0).integers(0, 256, (2, *preprocessing.shape), np.uint8)
    model = _export(whole, torch.from_numpy(pixels[:1]), outputs)
    try:
        session = OnnxSession(model)
    except UnloadableError as error:
        raise ExportError(str(error)) from error
    _check(whole, session, pixels)
    return model


def append_head(prefix: bytes, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> bytes:
    """Append a linear head to an exported prefix whose features are vectors.

    Args:
        prefix: The ONNX file's bytes from `load_or_export_onnx`, with D features.
        weight: float32 [k, D].
        bias: float32 [k].

    Returns:
        The ONNX file's bytes: pixels uint8 [1, H, W, C] to logits float32 [1, k] and features float32 [1, D].
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(prefix)
    graph = model.graph
    (features,) = (copy.deepcopy(value) for value in graph.output)
    graph.initializer.extend([numpy_helper.from_array(weight, HEAD_WEIGHT), numpy_helper.from_array(bias, HEAD_BIAS)])
    graph.node.append(helper.make_node("Gemm", [features.name, HEAD_WEIGHT, HEAD_BIAS], ["logits"], transB=1))
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, len(bias)])
    del graph.output[:]
    graph.output.extend([logits, features])
    content: bytes = model.SerializeToString()
    return content


def _export(network: nn.Module, pixels: Tensor, outputs: Sequence[str]) -> bytes:
    """Export for batches of one image: with a variable batch size, the export takes twice as long."""

    def run_exporter() -> bytes:
        program: Any = torch.onnx.export(
            network, (pixels,), input_names=["pixels"], output_names=list(outputs), dynamo=True, verbose=False
        )
        file = io.BytesIO()
        program.save(file)
        return file.getvalue()

    try:
        with silence_exporters():
            return run_in_thread(run_exporter)
    except Exception as error:  # a network's forward and torch's exporter may raise anything
        raise ExportError(f"torch cannot export the network: {type(error).__name__}") from error


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Suppress the logs, warnings and prints of exporters and of the libraries that load their files."""
    loggers = [logging.root, *map(logging.getLogger, ("torch.onnx", "torch.export", "onnxscript", "timm"))]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@torch.inference_mode()
def _check(network: nn.Module, session: OnnxSession, pixels: npt.NDArray[np.uint8]) -> None:
    """Raise an `ExportError` if the outputs of ONNX Runtime and torch differ by more than `TOLERANCE`."""
    expected = network(torch.from_numpy(pixels))
    for found, wanted in zip(
        session.outputs(pixels), expected if isinstance(expected, tuple) else (expected,), strict=True
    ):
        worst = relative_difference(found, wanted.numpy())
        if not worst <= TOLERANCE:
            raise ExportError(f"the network's output in ONNX Runtime differs from torch by {100 * worst:.2g} %")

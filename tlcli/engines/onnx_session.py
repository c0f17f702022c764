"""Run an exported network in ONNX Runtime on a CPU. Does not import torch, so that prediction starts fast.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tlcli.engines.threads import map_in_threads
from tlcli.errors import out_of_memory
from tlcli.images.batch import Pixels
from tlcli.processes import cores

if TYPE_CHECKING:
    import onnxruntime

# From version 1.29 on, ONNX Runtime sends telemetry about the networks it runs, unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

Values = npt.NDArray[np.float32]

EXPORT_ENGINES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
"""The engines that run exported networks, as `--engine` names them, and their names in messages."""
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
"""Names of the constants of a head that was appended to an exported prefix."""
TOLERANCE = 0.01
"""Largest accepted difference between the outputs of two engines for an image, relative to the norm of the output. It
implies a cosine similarity of at least 0.99995."""


class UnloadableError(Exception):
    """An engine cannot load a model; the text is the reason."""


class ExportedSession(Protocol):
    """An exported network in an engine. It takes one image at a time, so outputs do not depend on the batch."""

    engine: str
    """`onnx` or `openvino`."""
    precision: str
    """`fp32` or `bf16`."""

    def run(self, pixels: Pixels) -> Values:
        """Compute the first output, float32 [B, ...], for pixels uint8 [B, H, W, C], B >= 1."""

    def outputs(self, pixels: Pixels) -> list[Values]:
        """Compute all outputs, each float32 [B, ...], for pixels uint8 [B, H, W, C], B >= 1."""

    def map(self, batches: Iterable[Pixels]) -> Iterator[Values]:
        """Compute `run` for each batch in the background; yield the results in order."""


def relative_difference(found: Values, expected: Values) -> float:
    """Return the largest difference between two outputs [B, ...] for an image, relative to the norm of `expected`."""
    difference = np.linalg.norm((found - expected).reshape(len(found), -1), axis=1)
    norm = np.linalg.norm(expected.reshape(len(expected), -1), axis=1)
    return float((difference / np.maximum(norm, 1e-12)).max())


def open_session(model: bytes, *, threads: int) -> onnxruntime.InferenceSession:
    """Load a model in ONNX Runtime, on a CPU.

    Args:
        model: The ONNX file's bytes.
        threads: Threads per call; 0 uses one per core.

    Raises:
        UnloadableError: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UnloadableError(f"ONNX Runtime cannot load the network: {error}") from error


class OnnxSession:
    """An exported network that takes one image at a time: larger batches no longer fit into a core's cache.

    Args:
        model: The ONNX file's bytes: pixels uint8 [1, H, W, C] to one or more outputs float32 [1, ...].

    Raises:
        UnloadableError: ONNX Runtime cannot load it.
    """

    engine = "onnx"
    precision = "fp32"

    def __init__(self, model: bytes) -> None:
        self._session = open_session(model, threads=1)  # `map` uses one thread per core

    def run(self, pixels: Pixels) -> Values:
        """Compute the first output, float32 [B, ...], for pixels uint8 [B, H, W, C], B >= 1.

        Raises:
            MemoryError: Memory ran out.
        """
        return self.outputs(pixels)[0]

    def outputs(self, pixels: Pixels) -> list[Values]:
        """Compute all outputs, each float32 [B, ...], for pixels uint8 [B, H, W, C], B >= 1.

        Raises:
            MemoryError: Memory ran out.
        """
        try:
            images = [self._session.run(None, {"pixels": image[None]}) for image in pixels]
            return [np.concatenate(values) for values in zip(*images, strict=True)]
        except Exception as error:
            if out_of_memory(error):  # ONNX Runtime has no exception type for this
                raise MemoryError(str(error)) from error
            raise

    def map(self, batches: Iterable[Pixels]) -> Iterator[Values]:
        """Compute `run` for each batch in the background; yield the results in order."""
        return map_in_threads(self.run, batches, cores())

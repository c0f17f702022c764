"""A network in ONNX Runtime on a CPU. Torch-free, so that a process that only predicts starts fast.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tlcli.engines.streams import map_batches
from tlcli.errors import out_of_memory
from tlcli.processes import cores

if TYPE_CHECKING:
    import onnxruntime

# From 1.29 on, ONNX Runtime tells its makers about the networks it runs, unless this is set before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


class UnloadableError(Exception):
    """A model that ONNX Runtime can't load; its text is why."""


def open_session(model: bytes, *, threads: int) -> onnxruntime.InferenceSession:
    """A model in ONNX Runtime, on a CPU.

    Args:
        model: The ONNX file's bytes.
        threads: For each of its runs; 0 takes one a core.

    Raises:
        UnloadableError: ONNX Runtime can't load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its types have no common base
        raise UnloadableError(f"ONNX Runtime can't load it: {error}") from error


class OnnxSession:
    """An exported network, which takes one image at a time: larger batches no longer fit a core's cache.

    Args:
        model: The ONNX file's bytes: pixels uint8 [1, H, W, C] to float32 [1, ...].

    Raises:
        UnloadableError: ONNX Runtime can't load it.
    """

    def __init__(self, model: bytes) -> None:
        self._session = open_session(model, threads=1)  # `map` has a stream for each core

    def run(self, pixels: Pixels) -> Values:
        """uint8 [B, H, W, C], B >= 1, to float32 [B, ...].

        Raises:
            MemoryError: there is none left.
        """
        try:
            return np.concatenate([self._session.run(None, {"pixels": image[None]})[0] for image in pixels])
        except Exception as error:
            if out_of_memory(error):  # which has no type of its own
                raise MemoryError(str(error)) from error
            raise

    def map(self, batches: Iterable[Pixels]) -> Iterator[Values]:
        """`run` of each batch, computed in the background, in order."""
        return map_batches(self.run, batches, cores())

"""Run an exported network in OpenVINO on a CPU. Does not import torch, so that prediction starts fast.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import importlib.util
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tlcli.engines.onnx_session import TOLERANCE, OnnxSession, UnloadableError, Values, relative_difference
from tlcli.engines.threads import map_in_threads
from tlcli.errors import MachineError, out_of_memory
from tlcli.images.batch import Pixels
from tlcli.processes import cores

if TYPE_CHECKING:
    import openvino

# One thread per network: `map` uses one thread per core, and each works on its own image. Threads are not pinned to
# cores, because the decoder processes share these.
_CONFIG = {
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": 1,
    "INFERENCE_NUM_THREADS": 1,
    "ENABLE_CPU_PINNING": False,
}


def check_openvino(option: str = "--engine") -> None:
    """Check that OpenVINO is installed, without importing it.

    Args:
        option: The option whose value `openvino` requires it, for the message; ONNX is its alternative.

    Raises:
        MachineError: It is not installed.
    """
    if importlib.util.find_spec("openvino") is None:
        raise MachineError(
            f"{option} openvino needs OpenVINO, which is not installed: pip install 'tlcli[openvino]'. "
            f"Or use {option} onnx."
        )


def openvino_core() -> openvino.Core:
    """Import OpenVINO, which is installed, and return a new core."""
    # `import openvino` sends an event to a server, unless this package of its own cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


class OpenVinoSession:
    """An exported network in OpenVINO, in fp32. It takes one image at a time, as `OnnxSession` does.

    Each thread that runs it at the same time as others gets a copy of the network, compiled at its first image: the
    threads of one compiled network share locks.

    Args:
        model: The ONNX file's bytes: pixels uint8 [1, H, W, C] to one or more outputs float32 [1, ...].

    Raises:
        MachineError: OpenVINO is not installed.
        UnloadableError: OpenVINO cannot load it, or gives other results than ONNX Runtime.
    """

    engine = "openvino"

    def __init__(self, model: bytes) -> None:
        check_openvino()
        self._core = openvino_core()
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        """Compiled copies of the network that no thread uses."""
        self._compile_lock = threading.Lock()
        try:
            self._model = self._core.read_model(model, b"")
            self._idle.put(self._compile())
            shape = tuple(self._model.inputs[0].shape)[1:]
            self._check(model, np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8))
        except RuntimeError as error:  # the base class of OpenVINO's exceptions
            raise UnloadableError(f"OpenVINO cannot load the network: {str(error).strip()}") from error

    def _compile(self) -> openvino.InferRequest:
        with self._compile_lock:
            return self._core.compile_model(self._model, "CPU", _CONFIG).create_infer_request()

    def _check(self, model: bytes, pixels: Pixels) -> None:
        """Compare all outputs with those of ONNX Runtime, since features of both are kept in one cache."""
        for found, expected in zip(self.outputs(pixels), OnnxSession(model).outputs(pixels), strict=True):
            worst = relative_difference(found, expected)
            if not worst <= TOLERANCE:  # also if it is NaN
                raise UnloadableError(
                    f"the network's output in OpenVINO differs from ONNX Runtime by {100 * worst:.2g} %"
                )

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
            request = self._take()
            try:
                images = [list(request.infer([image[None]]).values()) for image in pixels]
            finally:
                self._idle.put(request)
            return [np.concatenate(values) for values in zip(*images, strict=True)]
        except Exception as error:
            if out_of_memory(error):  # OpenVINO has no exception type for this
                raise MemoryError(str(error)) from error
            raise

    def _take(self) -> openvino.InferRequest:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compile()

    def map(self, batches: Iterable[Pixels]) -> Iterator[Values]:
        """Compute `run` for each batch in the background; yield the results in order."""
        return map_in_threads(self.run, batches, cores())

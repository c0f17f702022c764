"""Run an exported network in OpenVINO on a CPU. Does not import torch, so that prediction starts fast.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import importlib.util
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlcli.engines.onnx_session import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    TOLERANCE,
    OnnxSession,
    UnloadableError,
    Values,
    relative_difference,
)
from tlcli.engines.threads import map_in_threads
from tlcli.errors import MachineError, out_of_memory
from tlcli.images.batch import Pixels
from tlcli.processes import cores

if TYPE_CHECKING:
    import openvino

BF16_TOLERANCE = 0.25
"""Largest difference between an output in bf16 and in fp32, relative to its norm. It only tells a defect from rounding:
`finetune` compares predictions before it writes a run in bf16."""

_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}
# One thread per network: `map` uses one thread per core, and each works on its own image. Threads are not pinned to
# cores, because the decoder processes share these.
_CONFIG = {
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


def bf16_obstacle() -> str | None:
    """Return why OpenVINO cannot compute in bf16 here; None if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed"
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor has no instructions for bf16 (AMX-BF16 or AVX-512 BF16)"
    return None


def check_bf16() -> None:
    """Check that OpenVINO is installed and can compute in bf16 here.

    Raises:
        MachineError: It is not installed, or this processor has no instructions for bf16.
    """
    check_openvino()
    if obstacle := bf16_obstacle():
        raise MachineError(
            f"--engine openvino --precision bf16: {obstacle}, so bf16 has no benefit here. Use --precision fp32."
        )


def openvino_core() -> openvino.Core:
    """Import OpenVINO, which is installed, and return a new core."""
    # `import openvino` sends an event to a server, unless this package of its own cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


class OpenVinoSession:
    """An exported network in OpenVINO. It takes one image at a time, as `OnnxSession` does.

    Each thread that runs it at the same time as others gets a copy of the network, compiled at its first image: the
    threads of one compiled network share locks.

    Args:
        model: The ONNX file's bytes: pixels uint8 [1, H, W, C] to one or more outputs float32 [1, ...].
        precision: `fp32` or `bf16`. In bf16, a head from `append_head` is computed in fp32, as it was fitted.

    Raises:
        MachineError: OpenVINO is not installed, or this processor cannot compute in bf16.
        UnloadableError: OpenVINO cannot load it, or gives other results than ONNX Runtime.
    """

    engine = "openvino"

    def __init__(self, model: bytes, precision: str = "fp32") -> None:
        check_bf16() if precision == "bf16" else check_openvino()
        self.precision = precision
        self._config = _CONFIG | {"INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision]}
        self._core = openvino_core()
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        """Compiled copies of the network that no thread uses."""
        self._compile_lock = threading.Lock()
        try:
            self._model = self._core.read_model(model, b"")
            self._head = _take_head(self._model) if precision == "bf16" else None
            self._idle.put(self._compile())
            shape = tuple(self._model.inputs[0].shape)[1:]
            self._check(model, np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8))
        except RuntimeError as error:  # the base class of OpenVINO's exceptions
            raise UnloadableError(f"OpenVINO cannot load the network: {str(error).strip()}") from error

    def _compile(self) -> openvino.InferRequest:
        with self._compile_lock:
            return self._core.compile_model(self._model, "CPU", self._config).create_infer_request()

    def _check(self, model: bytes, pixels: Pixels) -> None:
        """Compare all outputs with those of ONNX Runtime; in fp32, features of both are kept in one cache."""
        tolerance = BF16_TOLERANCE if self.precision == "bf16" else TOLERANCE
        for found, expected in zip(self.outputs(pixels), OnnxSession(model).outputs(pixels), strict=True):
            worst = relative_difference(found, expected)
            if not worst <= tolerance:  # also if it is NaN
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
            outputs = [np.concatenate(values) for values in zip(*images, strict=True)]
            return outputs if self._head is None else [self._head.logits(outputs[0]), *outputs]
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


class _Head(NamedTuple):
    """A linear head: weight float32 [k, D] and bias float32 [k]."""

    weight: Values
    bias: Values

    def logits(self, features: Values) -> Values:
        return features @ self.weight.T + self.bias


def _take_head(model: openvino.Model) -> _Head | None:
    """Remove a head from `append_head`, and its logits, from a network with features as second output; return it."""
    constants = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    if not {HEAD_WEIGHT, HEAD_BIAS} <= constants.keys():
        return None
    head = _Head(*(np.array(constants[name].data, np.float32) for name in (HEAD_WEIGHT, HEAD_BIAS)))
    model.remove_result(model.get_results()[0])
    return head

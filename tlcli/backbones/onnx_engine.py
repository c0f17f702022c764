"""A frozen prefix in ONNX Runtime: on a CPU several times as fast as torch, once it is exported.

Shapes: B pictures of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tlcli.backbones.engine import map_batches, normalisation
from tlcli.files import atomic_write

COSINE = 0.9999
"""Least cosine between what ONNX Runtime and torch give for a picture; an export below it is not used."""
LARGEST = 2_000_000_000
"""Bytes of weights above which ONNX wants a second file, and torch is used."""
_NAME = re.compile(r"prefix-(.+)-([0-9a-f]{32})\.onnx")


class ExportError(Exception):
    """A network that can't be exported, or doesn't say the same afterwards; its text is why."""


class OnnxRunner:
    """Runs an exported prefix in single-threaded streams: pixels in, features out.

    Args:
        model: The ONNX file's bytes; pixels uint8 [B, H, W, C] to features float32 [B, ...].

    Raises:
        ExportError: it is not what ONNX Runtime can load.
    """

    engine = "onnx"
    device = torch.device("cpu")

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # `map` has a thread for each core
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its types have no common base
            raise ExportError(f"ONNX Runtime can't load it: {error}") from error

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, C] to features float32 [B, ...]."""
        return torch.from_numpy(self._run(pixels))

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """`features` of each batch as an array, computed in the background, in order."""
        return map_batches(self._run, batches, self.device)

    def _run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        (features,) = self._session.run(None, {"pixels": pixels})
        array: npt.NDArray[np.float32] = features
        return array


class _FromPixels(nn.Module):
    """A prefix with normalisation before it: pixels uint8 [B, H, W, C] in."""

    scale: Tensor
    shift: Tensor

    def __init__(self, prefix: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.prefix = prefix
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.prefix(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return features


def open_onnx(
    prefix: nn.Module,
    shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    directory: Path | None,
    exporting: Callable[[], None],
) -> OnnxRunner:
    """The exported prefix that lies in `directory`; it is exported first where none does, or a damaged one.

    Args:
        prefix: float32 [B, C, H, W], normalised, to features [B, ...]; on the CPU.
        shape: (H, W, C).
        mean: A channel's mean, of pixels in [0, 1].
        std: A channel's standard deviation, of pixels in [0, 1].
        directory: Of this prefix alone, for its export; None keeps it in memory.
        exporting: Called before an export, which takes seconds.

    Raises:
        ExportError: it can't be exported, or says something else afterwards.
    """
    if directory is not None and (kept := _kept(directory)) is not None:
        with contextlib.suppress(ExportError):  # then it is exported anew
            return OnnxRunner(kept)
    exporting()
    network = _FromPixels(prefix, *normalisation(mean, std)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    model = _export(network, torch.from_numpy(pixels))
    runner = OnnxRunner(model)
    _check(network, runner, pixels)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        name = f"prefix-{_version()}-{_hash(model)}.onnx"
        with atomic_write(directory / name) as file:
            file.write(model)
    return runner


def _version() -> str:
    """Of what an export depends on besides the prefix."""
    return f"torch-{torch.__version__}"


def _hash(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()[:32]


def _kept(directory: Path) -> bytes | None:
    """The export in a directory, if it is of these versions and its bytes are what they were."""
    for path in sorted(directory.glob("prefix-*.onnx")):
        match = _NAME.fullmatch(path.name)
        if match and match[1] == _version():
            model = path.read_bytes()
            if _hash(model) == match[2]:
                return model
    return None


def _export(network: nn.Module, pixels: Tensor) -> bytes:
    """The network as an ONNX file, for any number of pictures."""
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST:
        raise ExportError("its weights don't fit into one ONNX file")
    batch = torch.export.Dim("batch", min=1)
    talkative = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in talkative]
    for logger in talkative:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (pixels,),
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes={"pixels": {0: batch}},
                dynamo=True,
                verbose=False,
            )
            file = io.BytesIO()
            program.save(file)
    except Exception as error:  # whatever a network's forward and torch's exporter raise
        raise ExportError(f"torch can't export it: {type(error).__name__}") from error
    finally:
        for logger, level in zip(talkative, levels, strict=True):
            logger.setLevel(level)
    return file.getvalue()


@torch.inference_mode()
def _check(network: nn.Module, runner: OnnxRunner, pixels: npt.NDArray[np.uint8]) -> None:
    """Compare it with torch on some pixels, one at a time and together."""
    expected = network(torch.from_numpy(pixels)).flatten(1).double()
    for given in (pixels, pixels[:1]):
        found = runner.features(given).flatten(1).double()
        cosine = torch.nn.functional.cosine_similarity(found, expected[: len(given)]).min().item()
        if not cosine >= COSINE:
            raise ExportError(f"what ONNX Runtime makes of it agrees with torch only to a cosine of {cosine:.5f}")

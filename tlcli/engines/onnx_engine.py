"""The ONNX Runtime engine: on a CPU several times as fast as torch, once the prefix is exported.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.engines.onnx_session import OnnxSession


class OnnxRunner:
    """Runs an exported prefix in ONNX Runtime.

    Args:
        model: The ONNX file's bytes, from `load_or_export_onnx`.

    Raises:
        UnloadableError: ONNX Runtime cannot load it.
    """

    engine = "onnx"
    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, model: bytes) -> None:
        self._session = OnnxSession(model)
        self.map = self._session.map

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Compute features float32 [B, ...] of pixels uint8 [B, H, W, C]."""
        return torch.from_numpy(self._session.run(pixels))

"""The engines for exported prefixes, ONNX Runtime and OpenVINO: on a CPU several times as fast as torch.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.engines.onnx_session import ExportedSession


class ExportedRunner:
    """Runs an exported prefix.

    Args:
        session: The prefix from `load_or_export_onnx`, in ONNX Runtime or OpenVINO.
    """

    device = torch.device("cpu")

    def __init__(self, session: ExportedSession) -> None:
        self._session = session
        self.engine, self.precision = session.engine, session.precision
        self.map = session.map

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Compute features float32 [B, ...] of pixels uint8 [B, H, W, C]."""
        return torch.from_numpy(self._session.run(pixels))

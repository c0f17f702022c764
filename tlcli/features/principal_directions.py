"""The directions in which features vary most.

Shapes: N images, D features, P directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 3


def principal_directions(features: Tensor, count: int) -> Tensor:
    """Return a basis of the `count` principal directions, approximately, by subspace iteration (Halko et al. 2011).

    Args:
        features: float32 [N, D], centered, on any device.
        count: Number of directions P, at most D.

    Returns:
        float32 [D, P], orthonormal columns; they span the same space as the principal directions.
    """
    basis = torch.randn(features.shape[1], count, generator=torch.Generator().manual_seed(0)).to(features.device)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(features.T @ (features @ basis)).Q
    return basis

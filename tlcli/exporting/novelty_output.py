"""Novelty as part of an exported network.

Shapes: B images in a batch, D features, k classes, M vectors in the bank, P directions, S known scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlcli.inference.novelty import Novelty


class NoveltyOutput(nn.Module):
    """Computes what `Novelty` computes, in torch.

    Args:
        novelty: The run's.
    """

    center: Tensor
    directions: Tensor | None
    vectors: Tensor
    known: Tensor

    def __init__(self, novelty: Novelty) -> None:
        super().__init__()
        bank = novelty.bank
        self.register_buffer("center", torch.from_numpy(bank.center))
        self.register_buffer("directions", None if bank.directions is None else torch.from_numpy(bank.directions))
        self.register_buffer("vectors", torch.from_numpy(bank.vectors))
        self.register_buffer("known", torch.from_numpy(novelty.known).float())
        self._nearest, self._scale, self._excess = bank.nearest, novelty.scale.tolist(), novelty.tail_excess

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the novelty of images in [0, 1]: float32 [B].

        Args:
            features: float32 [B, D], before the head.
            logits: float32 [B, k].
        """
        embedded = torch.nn.functional.normalize(features - self.center, dim=1)
        if self.directions is not None:
            embedded = embedded @ self.directions
        distance = 1 - (embedded @ self.vectors.T).topk(self._nearest, dim=1).values.mean(dim=1)
        score = distance / self._scale[0] - logits.logsumexp(dim=1) / self._scale[1]
        count = len(self.known)
        share = (self.known[None] < score[:, None]).float().sum(dim=1) / (count + 1)
        beyond = (score - self.known[-1]).clamp(min=0)
        return torch.where(beyond > 0, 1 - (-beyond / self._excess).exp() / (count + 1), share)

"""Tell how untypical an image is of the training images. Torch-free.

The score of an image adds two quantities, each divided by its standard deviation over known images: the mean cosine
distance between its features and the ten nearest ones of the training images (Sun et al. 2022, "Out-of-distribution
detection with deep nearest neighbors"), and the energy of its logits (Liu et al. 2020, "Energy-based
out-of-distribution detection"). Distances recognize images of another kind; the energy, images of a class that is
missing. The novelty is 1 minus the conformal p-value of the score (Bates et al. 2023, "Testing for outliers with
conformal p-values"): of known images, on average a share of at most R has a novelty above 1 - R.

Shapes: N images, D features, k classes, M vectors in the bank, P directions, S known scores.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError
from tlcli.runs.directory import NOVELTY_FILE
from tlcli.runs.run import Run

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

NEIGHBORS = 10
"""Nearest training images that the distance is averaged over; with fewer than 100, a tenth of them."""
COMPARED_TOGETHER = 32
"""Images compared with the bank at a time: one by one, reading the bank would take most of the time."""
SPARE = 4
"""Vectors compared exactly beyond the nearest ones, because of rounding."""
TAIL = 0.1
"""Share of the known scores, the largest ones, that decide how novelty approaches 1 beyond all of them."""
DECIMALS = 6
"""Decimals of novelty, on every path."""
NO_NOVELTY = f"has no {NOVELTY_FILE}, which tlcli 0.2 and older did not write"
"""Why a run cannot tell unknown images, after its name."""

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """Features of training images, to compare images with."""

    center: Floats
    """[D], subtracted from all features."""
    directions: Floats | None
    """[D, P], orthonormal columns, onto which features are projected; None keeps all D."""
    vectors: Floats
    """[M, P], features as `embed` gives them."""

    @property
    def nearest(self) -> int:
        """How many vectors the distance is averaged over."""
        return max(1, min(NEIGHBORS, len(self.vectors) // NEIGHBORS))

    def distances(self, features: Floats, groups: tuple[Groups, Groups] | None = None) -> Scores:
        """Return the mean cosine distance to the nearest vectors: float64 [N].

        Args:
            features: float32 [N, D].
            groups: Group numbers, int64 [N] and [M]: an image is not compared with its own group. Its distance is
                infinite if too few vectors are left.
        """
        # More threads would spin between the products, on the cores that run the network and decode images.
        with _libraries().limit(limits=1, user_api="blas"):
            return self._distances(features, groups)

    def _distances(self, features: Floats, groups: tuple[Groups, Groups] | None) -> Scores:
        nearest = self.nearest
        candidates = min(nearest + SPARE, len(self.vectors))
        found = np.empty(len(features), np.float64)
        for start in range(0, len(features), COMPARED_TOGETHER):
            rows = slice(start, start + COMPARED_TOGETHER)
            block = features[rows]
            filled = np.resize(block, (COMPARED_TOGETHER, block.shape[1]))
            embedded = embed(filled, self.center, self.directions)[: len(block)]
            cosines = embedded @ self.vectors.T
            if groups is not None:
                cosines[groups[0][rows, None] == groups[1][None]] = -np.inf
            # A product of fewer rows rounds differently, but the novelty of an image must not depend on how many images
            # were predicted with it. So the product only selects, and `filled` always has as many rows.
            selected = np.argpartition(cosines, -candidates, axis=1)[:, -candidates:]
            exact = np.einsum("nd,nkd->nk", embedded.astype(np.float64), self.vectors[selected].astype(np.float64))
            exact[np.isneginf(np.take_along_axis(cosines, selected, axis=1))] = -np.inf
            found[rows] = 1 - np.sort(exact, axis=1)[:, -nearest:].mean(axis=1)
        return found


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """The bank of training features, and the scores of known images."""

    bank: FeatureBank
    scale: Scores
    """[2], the standard deviations of distance and energy over known images."""
    known: Scores
    """[S], ascending: the scores of images that the network, or the head of their fold, was not trained on. None was
    compared with itself, its near copies, or its group."""

    def __call__(self, features: Floats, logits: Floats) -> Scores:
        """Return the novelty of images in [0, 1]: float64 [N].

        Args:
            features: float32 [N, D], before the head.
            logits: float32 [N, k].
        """
        return self.of_scores(combine(self.bank.distances(features), energies(logits), self.scale))

    @property
    def tail_excess(self) -> float:
        """By how much the largest known scores exceed the others on average."""
        count = len(self.known)
        tail = max(1, round(TAIL * count))
        threshold = self.known[max(0, count - tail - 1)]
        return max(float((self.known[-tail:] - threshold).mean()), 1e-12)

    def of_scores(self, scores: Scores) -> Scores:
        """Return the novelty of scores: the share of known images with smaller ones; float64 [N].

        Beyond all known scores, where no share can be counted, 1 minus novelty decreases exponentially with the mean
        excess of the largest known scores.
        """
        count = len(self.known)
        share = np.searchsorted(self.known, scores, side="left") / (count + 1)
        beyond = np.maximum(scores - self.known[-1], 0)
        found: Scores = np.where(beyond > 0, 1 - np.exp(-beyond / self.tail_excess) / (count + 1), share)
        return found.round(DECIMALS)

    def sizes(self) -> dict[str, int]:
        """Return the numbers of vectors in the bank, of their values, and of known images, for `run.json`."""
        count, values = self.bank.vectors.shape
        return {"bank": count, "values": values, "known": len(self.known)}

    def to_bytes(self) -> bytes:
        """Return the content of the run's file: float16 for the vectors and the directions."""
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {
            "center": self.bank.center,
            "vectors": self.bank.vectors.astype(np.float16),
            "scale": self.scale,
            "known": self.known,
        }
        if self.bank.directions is not None:
            arrays["directions"] = self.bank.directions.astype(np.float16)
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})  # it ignores strides


@functools.cache
def _libraries() -> ThreadpoolController:
    """Find the loaded libraries that have threads; searching takes a fourth as long as comparing one image."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def embed(features: Floats, center: Floats, directions: Floats | None) -> Floats:
    """Center features float32 [N, D], divide them by their length, and project them: float32 [N, P].

    The length includes what the projection drops, so an image unlike all training images is far from all of them.
    """
    centered: Floats = features - center
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    embedded: Floats = centered if directions is None else centered @ directions
    return embedded


def energies(logits: Floats) -> Scores:
    """Return the energy -log(sum(exp(logits))) of logits [N, k]: float64 [N]; large if no class fits."""
    values = logits.astype(np.float64)
    largest = values.max(axis=1)
    found: Scores = -largest - np.log(np.exp(values - largest[:, None]).sum(axis=1))
    return found


def combine(distance: Scores, energy: Scores, scale: Scores) -> Scores:
    """Add distances and energies, each float64 [N], in units of their standard deviations [2]."""
    found: Scores = distance / scale[0] + energy / scale[1]
    return found


def load_novelty(run: Run) -> Novelty | None:
    """Load what a run knows about typical images; None if it has nothing, such as a run of version 0.1 or 0.2.

    Raises:
        ArtifactError: The file is missing, was changed, or is not what `finetune` writes.
    """
    if not run.has_novelty:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(run.content(NOVELTY_FILE))
        directions = arrays.get("directions")
        bank = FeatureBank(
            center=arrays["center"],
            directions=None if directions is None else directions.astype(np.float32),
            vectors=arrays["vectors"].astype(np.float32),
        )
        return Novelty(bank=bank, scale=arrays["scale"], known=arrays["known"])
    except (SafetensorError, ValueError, KeyError) as error:
        path = run.directory / NOVELTY_FILE
        raise ArtifactError(f"{path} is not a file that tlcli finetune writes: {error}", path=path) from error

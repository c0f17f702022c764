"""Project feature vectors to a two-dimensional map that keeps neighbors together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DIMENSIONS = 50
"""Principal components passed to t-SNE, as its authors do; it also saves time."""
STEPS = 500
"""Half of the usual number without loss: trustworthiness 0.946 instead of 0.945 on 3,781 photographs."""
MIN_TSNE = 10
"""With fewer points, the first two principal components are used instead."""
MIN_THREADS = 1000
"""With fewer points, one thread computes. Several would wait for each other at every step, which takes seconds instead
of fractions of one on a busy machine (benchmarks/busy.py)."""


def project_to_map(vectors: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float32]:
    """Compute a 2-D map by t-SNE (van der Maaten & Hinton 2008), initialized with PCA (Kobak & Berens 2019).

    Args:
        vectors: float32 [N, D], finite.
        seed: Seed of the randomized PCA.

    Returns:
        float32 [N, 2] in [0, 1].
    """
    import sklearn.manifold  # noqa: F401 - load its libraries before they are limited
    from threadpoolctl import threadpool_limits

    count = len(vectors)
    if count < 3 or not np.ptp(vectors, axis=0).any():
        return np.full((count, 2), 0.5, np.float32)
    # Several threads make the PCA of up to 3,000 points slower, on an idle machine too.
    with threadpool_limits(1, user_api="blas" if count >= MIN_THREADS else None):
        found = _project(vectors, seed)
    size = np.ptp(found, axis=0)
    positions: npt.NDArray[np.float32] = ((found - found.min(axis=0)) / np.where(size, size, 1)).astype(np.float32)
    return positions


def _project(vectors: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    few = count < MIN_TSNE
    pca = PCA(min(2 if few else DIMENSIONS, count, width), random_state=seed)
    found: npt.NDArray[np.float32] = pca.fit_transform(vectors)
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 1)))
    if few:
        return found
    spread = found / max(float(np.abs(found).max()), 1e-12)
    perplexity, threads = min(30.0, (count - 1) / 3), -1 if count >= MIN_THREADS else 1
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=STEPS, random_state=seed, n_jobs=threads)
    placed: npt.NDArray[np.float32] = tsne.fit_transform(spread)
    return placed

"""Choose few images that represent many.

Shapes: C candidates, P directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from tlcli.training.active_learning.near_copies import distinct_rows, least_cosines

Floats = NDArray[np.float32]


def representatives(directions: Floats, covered: Floats, size: int) -> NDArray[np.int64]:
    """Choose the candidates that are most similar to all others, one by one, by what each adds to those before it.

    Maximizes the sum of the similarities of each candidate to the most similar chosen image ("facility location";
    Wei et al. 2015, "Submodularity in data subset selection and active learning"): the centers of clusters, large
    clusters first. Greedy choice reaches 1 - 1/e of the maximum; what a candidate adds only shrinks, so few of them
    have to be computed again for each choice (Minoux 1978).

    Args:
        directions: float32 [C, P], of length 1.
        covered: float32 [C], cosine of each candidate to the most similar image that was chosen before, at least
            that of images that do not represent each other.
        size: Number of candidates to choose, at most. No near copies of each other are chosen, and none that
            adds nothing.

    Returns:
        int64, indices of candidates in the order of choice.
    """
    cosines = directions @ directions.T
    least = least_cosines(cosines) if len(cosines) else covered
    gains = np.maximum(cosines - covered, 0).sum(axis=1)
    chosen: list[int] = []
    while len(chosen) < min(size, len(directions)):
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        gains[best] = np.maximum(cosines[best] - covered, 0).sum()
        if best != gains.argmax():
            continue
        chosen.append(best)
        covered = np.maximum(covered, cosines[best])
        gains[cosines[best] >= least[best]] = 0
    return np.array(chosen, np.int64)


def diverse(directions: Floats, weights: Floats, size: int) -> NDArray[np.int64]:
    """Choose the candidates next to the centers of `size` clusters, fewer if they are near copies of each other.

    Args:
        directions: float32 [C, P], of length 1.
        weights: float32 [C], above 0, how much each candidate counts in the clustering.
        size: Number of candidates to choose, at most.

    Returns:
        int64, indices of candidates, the heaviest cluster first.
    """
    if not min(size, len(directions)):
        return np.empty(0, np.int64)
    distinct = distinct_rows(directions)
    directions, weights = directions[distinct], weights[distinct]
    if len(distinct) <= size:
        return distinct
    clusters = KMeans(size, n_init=1, random_state=0).fit(directions, sample_weight=weights)
    distances = clusters.transform(directions)
    mass = np.bincount(clusters.labels_, weights, minlength=size)
    nearest = distances.argmin(axis=0)[np.argsort(-mass, kind="stable")]
    chosen = dict.fromkeys([*nearest.tolist(), *range(size)])  # one image may be next to two centers
    return distinct[list(chosen)[:size]]

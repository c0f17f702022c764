"""Find images that belong together, such as the frames of a burst, by the features that training uses anyway.

Two images of one class are linked if they are much more alike than either of them and the images around it, and if so
near an image is unexpected. Unrelated images have few links. If links are frequent, as in bursts, images without a link
are likely to be frames as well: images are then clustered. For the choice of the constants, see benchmarks/RESULTS.md.

Shapes: N images, D features, n images of a class, M links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlcli.features.burst_clusters import burst_clusters, connected
from tlcli.features.class_residuals import chance_similarity, class_residuals
from tlcli.features.look_alikes import BACKGROUND_RANK, find_look_alikes
from tlcli.features.neighbors import Read

MIN_GAP = 0.5
"""Similarity above the background of both images that links them."""
MANY, NOTABLE_GAP = 0.1, 0.4
"""Images are bursts if more than a tenth of them have a neighbor with such a gap; in classes that are too small for a
background, with `MIN_GAP`."""
MIN_GAP_IN_BURSTS = 0.15
"""Gap of two images in bursts from which on they may be in one cluster."""
NEAR_COPY = 0.7
"""Similarity that links two images whatever their background, such as the frames of a long video."""
COPY = 0.99
"""Similarity of copies of an image, which do not show that others are bursts."""
MOST_EXPECTED = 0.03
"""Number of images that are expected to be as near as two linked ones, at most, unless there are bursts."""
MAX_CHANCE = 0.2
"""Root mean square similarity of images of different classes above which features have too few dimensions to recognize
an image. It is 0.08 to 0.12 for EfficientNet-Lite0, and 0.3 to 0.4 for an untrained LeNet-5."""
LARGEST_SHARE = 0.5
"""Share of the images above which a group is divided at its weakest links: little could be held out."""


@dataclass(frozen=True, kw_only=True)
class SimilarImages:
    """Links between images that belong together."""

    pairs: npt.NDArray[np.int64]
    """[M, 2], indices of images."""
    gaps: npt.NDArray[np.float32]
    """[M], similarity above the background."""
    similarities: npt.NDArray[np.float32]
    """[M], cosines."""
    bursts: bool
    """Whether many images have a link."""

    def groups(self, among: npt.NDArray[np.bool_]) -> list[list[int]]:
        """Return the groups of two or more images, connected by links.

        Args:
            among: bool [N], the images to group.
        """
        links = among[self.pairs].all(axis=1)
        pairs, gaps = self.pairs[links], self.gaps[links]
        largest = max(2.0, LARGEST_SHARE * among.sum())
        while True:
            component = connected(len(among), pairs)
            too_large = np.bincount(component) > largest
            if not too_large.any():
                break
            within = too_large[component[pairs[:, 0]]]
            kept = ~within | (gaps > np.median(gaps[within]))
            pairs, gaps = pairs[kept], gaps[kept]
        linked = np.unique(pairs)
        order = linked[np.argsort(component[linked], kind="stable")]
        starts = np.flatnonzero(np.diff(component[order])) + 1
        return [group.tolist() for group in np.split(order, starts) if len(group)]

    def near_copies(self, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return the images outside of train that are nearly the same as a training image: in bursts, its frames.

        Args:
            train: bool [N], the training images.
        """
        certain = self.similarities > NEAR_COPY
        if self.bursts:
            certain |= self.gaps > MIN_GAP
        pairs = self.pairs[certain]
        crossing = pairs[train[pairs].sum(axis=1) == 1]
        return np.unique(crossing[~train[crossing]])


_NONE = SimilarImages(
    pairs=np.zeros((0, 2), np.int64), gaps=np.zeros(0, np.float32), similarities=np.zeros(0, np.float32), bursts=False
)


def find_similar_images(
    read: Read, labels: npt.NDArray[np.integer], *, has_groups: bool = False, device: str = "cpu"
) -> SimilarImages:
    """Link images of one class that belong together.

    Args:
        read: Reads features; called several times for the same images.
        labels: int [N], the classes.
        has_groups: Whether the user named groups. Bursts are then among these, and a false link would join two of them.
        device: The device to compute on: `cpu` or a CUDA device.
    """
    count = len(labels)
    if not count:
        return _NONE
    residuals = class_residuals(read, labels, device)
    if chance_similarity(residuals, labels) > MAX_CHANCE:
        return _NONE
    found = find_look_alikes(residuals, labels, least=NOTABLE_GAP, near_copy=NEAR_COPY)
    pairs = np.stack(np.divmod(found.keys, count), axis=1)
    unexpected = found.expected() < MOST_EXPECTED
    near_copies = unexpected & (found.similarities > NEAR_COPY)
    linked = (unexpected & (found.sure_gaps > MIN_GAP)) | near_copies
    has_background = np.bincount(labels)[labels[pairs[:, 0]]] > BACKGROUND_RANK
    notable = near_copies | (unexpected & (found.sure_gaps > np.where(has_background, NOTABLE_GAP, MIN_GAP)))
    bursts = len(np.unique(pairs[notable & (found.similarities < COPY)])) > MANY * count
    if bursts and not has_groups:
        sure = found.keys[linked]
        found = find_look_alikes(residuals, labels, least=MIN_GAP_IN_BURSTS, near_copy=NEAR_COPY)
        pairs, linked = np.stack(np.divmod(found.keys, count), axis=1), np.isin(found.keys, sure)
        backgrounds = np.zeros(count, np.float32)
        backgrounds[found.images] = found.backgrounds
        clusters = burst_clusters(residuals, backgrounds, pairs, linked)
        linked = clusters[pairs[:, 0]] == clusters[pairs[:, 1]]
    return SimilarImages(
        pairs=pairs[linked], gaps=found.gaps[linked], similarities=found.similarities[linked], bursts=bursts
    )

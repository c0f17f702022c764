"""Near duplicates: candidates by their features, confirmed by laying the images over each other.

Features alone can't tell a copy from another image of a like thing: among the 7.1 million pairs of 3,781 photographs
of clothes (400 x 534 pixels or so, the default backbone at 224) 5 have a cosine of 0.93 or more, of which 1 shows the
same image, while of copies cropped by 5 % at each side only three fifths get there. So features only propose (cosine
0.85, 731 pairs), and pixels decide. Of copies of 300 of these photographs were then found: all that were saved as JPEG
of quality 50, 70 or 90, all of 3/4 the size and 99.7 % of half, all darkened by a fifth and 95 % brightened by it, all
mirrored; cropped at every side by 2.5 % 99.7 %, 5 % 98 %, 10 % 68 %; by up to 7 % and differently at each side 87 %;
turned to gray 23 %. False pairs: none; the best resembled each other by 0.916, two white shirts on the same red cloth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tlcli.features.extractor import FeatureExtractor
from tlcli.features.neighbors import nearest_pairs
from tlcli.images.loader import ImageLoader
from tlcli.images.thumbnail_match import THUMBNAIL, crop_patterns, pattern_similarity, whole_pattern
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import ComputeSettings
from tlcli.training.head.fit import StoredRows

LEAST_COSINE = 0.85
"""Of the features of two images that are worth a look."""
NEIGHBORS = 8
"""Images that are looked at for each. More copies of one image are still found, as a chain."""
ALIKE = 0.93
"""Share of what is in the worst tile that the other image must explain."""

Links = dict[int, dict[int, float]]
"""Of each image that has near duplicates: their numbers, and how much they resemble it, in [`ALIKE`, 1]."""


def near_duplicates(
    extractor: FeatureExtractor,
    paths: Sequence[str],
    digests: Sequence[bytes],
    compute: ComputeSettings,
    report: Reporter,
) -> Links:
    """Find images that are the same but for re-encoding, resizing, brightness, mirroring or a slight crop.

    Args:
        extractor: Its plain store has the features.
        paths: Of N images that differ in their bytes.
        digests: Of their files.
        compute: Where to decode.
        report: Shown the progress.
    """
    rows = StoredRows(extractor, digests, 0)
    with report.task("Similar", len(paths)) as advance:
        pairs = nearest_pairs(
            rows.read,
            len(paths),
            least=LEAST_COSINE,
            most=NEIGHBORS,
            device=extractor.network.head_device,
            progress=advance,
        )
    report.detail(f"  {len(pairs):,} pairs of features with a cosine of {LEAST_COSINE} or more")
    if not len(pairs):
        return {}
    order = DecodeOptions(preprocessing=replace(THUMBNAIL, intensity=extractor.network.preprocessing.intensity))
    thumbnails = _thumbnails(np.unique(pairs).tolist(), paths, digests, order, compute, report)
    partners: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs.tolist():
        if one in thumbnails and other in thumbnails:
            partners[one].append(other)  # either may be a crop of the other
            partners[other].append(one)
    links: Links = defaultdict(dict)
    for one, others in partners.items():
        patterns = np.stack([whole_pattern(thumbnails[other]) for other in others])
        scores = pattern_similarity(crop_patterns(thumbnails[one]), patterns)
        for other, score in zip(others, scores.tolist(), strict=True):
            if score >= ALIKE:
                links[one][other] = links[other][one] = max(score, links[one].get(other, 0.0))
    return dict(links)


def _thumbnails(
    numbers: Sequence[int],
    paths: Sequence[str],
    digests: Sequence[bytes],
    order: DecodeOptions,
    compute: ComputeSettings,
    report: Reporter,
) -> dict[int, npt.NDArray[np.uint8]]:
    """Of the images with these numbers; those that changed since their features were made are left out, and said."""
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with (
        ImageLoader(order, workers=compute.worker_count()) as loader,
        report.task("Compare", len(numbers)) as advance,
    ):
        for number, image in zip(numbers, loader.load(paths[number] for number in numbers), strict=True):
            if image.pixels is not None and image.digest == digests[number]:
                found[number] = np.frombuffer(image.pixels, np.uint8).reshape(THUMBNAIL.shape)
            advance(1)
    if len(found) < len(numbers):
        report.warn(
            f"{len(numbers) - len(found):,} images changed while they were checked. Run the check again for them."
        )
    return found

"""Find masks among the images: `001_mask.png` beside `001.png`, or a folder `masks` beside `images`."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from tlcli.datasets.folder_names import MASK_NAME
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import DecodeOptions

_WORDS = (
    "mask|masks|seg|segm|segmentation|gt|label|labels|labelids|groundtruth|ground_truth|annotation|anno|matte|trimap"
)
_CLUES = ("mask", "seg", "gt", "label", "ground", "anno", "matte", "trimap")
"""One of these is part of each word."""
_AFTER = re.compile(rf"(?P<image>.+?)(?P<mark>[ _.-]?(?:{_WORDS}))(?P<number>[ _.-]?\(?\d+\)?)?", re.IGNORECASE)
_IMAGE = re.compile(r"(?P<image>.+?)[ _.-]?(?:image|img|rgb|photo|orig|original|raw|input|color)", re.IGNORECASE)
_BEFORE = re.compile(rf"(?P<mark>(?:{_WORDS})[ _.-])(?P<image>.+)", re.IGNORECASE)

MIN_PAIRS = 3
CHECKED_IMAGES = 5
"""Number of supposed masks whose pixels are examined."""
SIDE = 64
"""Width and height in pixels to which they are resized."""


Pair = tuple[str, str, str]
"""The pattern that matches a mask, the mask, and its image."""


@dataclass(frozen=True, kw_only=True)
class MaskPairs:
    """Images that are masks of others, by their names."""

    exclude: str
    """The pattern that matches the masks."""
    pairs: tuple[tuple[str, str], ...]
    """The path of each mask, and that of its image."""


def find_mask_pairs(paths: Iterable[str]) -> list[MaskPairs]:
    """Find masks by their names: alternatives, one of which may be right, of at least three pairs each.

    A mask has the name of an image in the same folder and a word such as `_mask` after or before it, or the same name
    in a folder such as `masks`, or the same name with another suffix.
    """
    folders: dict[str, dict[str, str]] = defaultdict(dict)  # stem to path, by folder
    suffixes: Counter[str] = Counter()
    twice: list[tuple[str, str]] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - many paths
        suffixes[suffix] += 1
        other = folders[folder].setdefault(stem, path)
        if other != path:
            twice.append((path, other))
    suspects = (stems for stems in folders.values() if _may_hold_masks("\n".join(stems).lower()))
    found = [*(pair for stems in suspects for pair in _in_folder(stems)), *_in_mask_folders(folders)]
    both = [
        [(f"*{os.path.splitext(mask)[1]}", mask, image) for mask, image in pairs]  # noqa: PTH122
        for pairs in (twice, [(image, mask) for mask, image in twice])
    ]
    return [
        MaskPairs(exclude=pattern, pairs=tuple((mask, image) for _, mask, image in chosen))
        for pairs in (found, *both)
        for pattern, chosen in _most_common(pairs)
        if pairs is found or len(chosen) == suffixes[pattern[1:]]
    ]


def _most_common(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Return the pattern that most pairs have, with these, if there are enough."""
    counts = Counter(pattern for pattern, _, _ in pairs).most_common(1)
    return [(name, [pair for pair in pairs if pair[0] == name]) for name, count in counts if count >= MIN_PAIRS]


def _may_hold_masks(text: str) -> bool:
    """Return whether names may be those of masks; fast, because most are not."""
    return any(clue in text for clue in _CLUES)


def _plain_stems(stems: dict[str, str]) -> dict[str, str]:
    """Return the paths of a folder's images by their stems, also without a word such as `_image`."""
    return {match["image"]: path for stem, path in stems.items() if (match := _IMAGE.fullmatch(stem))} | stems


def _in_folder(stems: dict[str, str]) -> Iterator[Pair]:
    """Yield the pairs of images and masks in one folder."""
    images = _plain_stems(stems)
    for stem, path in stems.items():
        if (match := _AFTER.fullmatch(stem)) and match["image"] in images:
            yield f"*{match['mark']}{'*' if match['number'] else '.*'}", path, images[match["image"]]
        elif (match := _BEFORE.fullmatch(stem)) and match["image"] in images:
            yield f"{match['mark']}*", path, images[match["image"]]


def _in_mask_folders(folders: dict[str, dict[str, str]]) -> Iterator[Pair]:
    """Yield the pairs of masks in or below a folder of masks and images of the same names beside it."""
    parts = {folder: folder.split("/") for folder in folders}
    first, last = (min(parts.values()), max(parts.values())) if parts else ([], [])
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    masked: list[tuple[str, int]] = []
    below: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder, names in parts.items():
        depth = next((at for at in range(shared, len(names)) if MASK_NAME.fullmatch(names[at])), None)
        if depth is not None:
            masked.append((folder, depth))
        for end in range(shared, len(names)):
            below[tuple(names[:end])].append(folder)
    for folder, depth in masked:
        name, masks = parts[folder][depth], folders[folder]
        plain = {stem: (match["image"] if (match := _AFTER.fullmatch(stem)) else stem) for stem in masks}
        for other in below[tuple(parts[folder][:depth])]:
            images = _plain_stems(folders[other]) if parts[other][depth] != name else {}
            found = [stem for stem in masks if plain[stem] in images]
            if len(found) * 2 > len(masks):
                yield from ((f"{name}/", masks[stem], images[plain[stem]]) for stem in found)
                break


def confirmed_masks(candidates: Iterable[MaskPairs]) -> MaskPairs | None:
    """Return the first of several alternatives whose pixels are those of masks; None if there is none."""
    return next(filter(look_like_masks, candidates), None)


def look_like_masks(masks: MaskPairs) -> bool:
    """Return whether most of a few masks are nearly constant, or have two levels or few colors, as masks have."""
    paths = [mask for mask, _ in masks.pairs]
    step = max(1, len(paths) // CHECKED_IMAGES)
    chosen = paths[::step][:CHECKED_IMAGES]
    preprocessing = Preprocessing(
        height=SIDE,
        width=SIDE,
        channels=3,
        fit="squash",
        crop_fraction=1.0,
        interpolation="nearest",
        mean=(0.5,) * 3,
        std=(1.0,) * 3,
    )
    with ImageLoader(DecodeOptions(preprocessing=preprocessing), workers=1) as loader:
        pixels = [image.pixels for image in loader.load(chosen) if image.pixels is not None]
    return bool(pixels) and sum(map(_is_flat, pixels)) * 2 > len(pixels)


def _is_flat(pixels: bytes) -> bool:
    """Return whether almost all pixels of an RGB image have few levels, or the same one; a JPEG blurs them a little."""
    levels = Counter((red >> 4, green >> 4, blue >> 4) for red, green, blue in zip(*[iter(pixels)] * 3, strict=True))
    common = sum(count for _, count in levels.most_common(2))
    return common >= 0.95 * levels.total() or len(set(zip(*[iter(pixels)] * 3, strict=True))) <= 24

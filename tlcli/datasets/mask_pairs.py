"""Find masks among the images: `001_mask.png` beside `001.png`, or a folder `masks` beside `images`."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tlcli.datasets.split_folders import MASK_NAME
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import DecodeOptions

_WORDS = (
    "mask|masks|seg|segm|segmentation|gt|label|labels|labelids|groundtruth|ground_truth|annotation|anno|matte|trimap"
)
_CLUES = ("mask", "seg", "gt", "label", "ground", "anno", "matte", "trimap")
"""One of these is part of each word."""
_AFTER = re.compile(rf"(?P<image>.+?)(?P<mark>[ _.-]?(?:{_WORDS}))(?P<number>[ _.-]?\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(rf"(?P<mark>(?:{_WORDS})[ _.-])(?P<image>.+)", re.IGNORECASE)

MIN_PAIRS = 3
CHECKED_IMAGES = 5
"""Number of supposed masks whose pixels are looked at."""
SIDE = 64
"""Width and height in pixels at which they are looked at."""


@dataclass(frozen=True, kw_only=True)
class MaskPairs:
    """Images that are masks of others, judging by their names."""

    exclude: str
    """The pattern that matches the masks."""
    pairs: tuple[tuple[str, str], ...]
    """The path of each mask, and that of its image."""


def find_mask_pairs(paths: Iterable[str]) -> MaskPairs | None:
    """Find masks by their names; None if there are fewer than three.

    A mask has the name of an image in the same folder and a word such as `_mask` after or before it, or the same name
    in a folder such as `masks`, or the same name with another suffix.
    """
    folders: dict[str, dict[str, str]] = defaultdict(dict)  # stem to path, by folder
    twice: list[tuple[str, str, str]] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - many paths
        other = folders[folder].setdefault(stem, path)
        if other != path:
            twice.append((f"*{suffix}", path, other))
    suspects = (stems for stems in folders.values() if _may_hold_masks("\n".join(stems).lower()))
    found = [
        *(pair for stems in suspects for stem, path in stems.items() if (pair := _in_folder(stem, path, stems))),
        *_in_mask_folders(folders),
    ]
    for pairs in (found, twice):
        pattern, count = Counter(pair[0] for pair in pairs).most_common(1)[0] if pairs else ("", 0)
        if count >= MIN_PAIRS:
            chosen = [pair for pair in pairs if pair[0] == pattern]
            return MaskPairs(exclude=pattern, pairs=tuple(pair[1:] for pair in chosen))
    return None


def _may_hold_masks(text: str) -> bool:
    """Return whether names may be those of masks; fast, because most are not."""
    return any(clue in text for clue in _CLUES)


def _in_folder(stem: str, path: str, stems: dict[str, str]) -> tuple[str, str, str] | None:
    """Return the pattern, the mask, and its image, if a file is the mask of another one in its folder."""
    if (match := _AFTER.fullmatch(stem)) and match["image"] in stems:
        return f"*{match['mark']}{'*' if match['number'] else '.*'}", path, stems[match["image"]]
    if (match := _BEFORE.fullmatch(stem)) and match["image"] in stems:
        return f"{match['mark']}*", path, stems[match["image"]]
    return None


def _in_mask_folders(folders: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield the pairs of folders of masks, or below one, that lie beside images of the same names."""
    parts = {folder: folder.split("/") for folder in folders}
    masked: list[tuple[str, int]] = []
    below: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder, names in parts.items():
        depth = next((depth for depth, name in enumerate(names) if MASK_NAME.fullmatch(name)), None)
        if depth is not None:
            masked.append((folder, depth))
        for end in range(len(names)):
            below[tuple(names[:end])].append(folder)
    for folder, depth in masked:
        name, masks = parts[folder][depth], folders[folder]
        plain = {stem: (match["image"] if (match := _AFTER.fullmatch(stem)) else stem) for stem in masks}
        for other in below[tuple(parts[folder][:depth])]:
            images = folders[other]
            found = [stem for stem in masks if plain[stem] in images] if parts[other][depth] != name else []
            if len(found) * 2 > len(masks):
                yield from ((f"{name}/", masks[stem], images[plain[stem]]) for stem in found)
                break


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

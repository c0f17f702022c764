"""DATA as WebDataset shards: a sample is the files of a tar that share a key, the path up to the first dot in the name.

One of them is the image. Its class is the text of `.cls`, or the value of `label`, `class`, or `cls` in `.json`, which
may also have `split` and `group`, regardless of case.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from tlcli.datasets.image_files import IMAGE_SUFFIXES, other_suffix
from tlcli.datasets.labeled_image import LabeledImage, default_to_train, split_named
from tlcli.datasets.path_filter import EXCLUDED, PathFilter
from tlcli.datasets.tables.headers import header_key
from tlcli.datasets.tables.values import names_no_group
from tlcli.datasets.tars import Tar, TarEntry, open_tars, split_key
from tlcli.errors import DataError

LABEL_KEYS = ("label", "class", "cls")
"""Keys of a `.json` file that may name the class; the first one present is used."""


def read_shards(pattern: str, skipped: Counter[str], paths: PathFilter) -> list[LabeledImage]:
    """Read the labeled images of all shards that `pattern` expands to.

    Args:
        pattern: A tar, or several such as `shards-{000..099}.tar`.
        skipped: Counts skipped files by reason.
        paths: Drops files by their name in the tar.

    Raises:
        DataError: A shard is missing or damaged, there are no labeled images, or a split is invalid.
        MachineError: A shard may not be read, or a URL cannot be reached.
    """
    images = default_to_train(
        [image for shard in open_tars(pattern) for image in _labeled_images(shard, skipped, paths)]
    )
    if not images:
        found = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items() if count) or "no files"
        raise DataError(
            f"{pattern} holds no labeled images (found {found}). Expected key.jpg with key.cls, or with key.json that "
            "has the class under label.",
            path=pattern,
        )
    return images


def _labeled_images(tar: Tar, skipped: Counter[str], paths: PathFilter) -> Iterator[LabeledImage]:
    """Yield the labeled images of a tar in their order."""
    skipped += tar.skipped
    labels: dict[str, dict[str, bytes]] = defaultdict(dict)
    for name, content in tar.labels.items():
        key, suffix = split_key(name)
        labels[key][suffix] = content
    images: dict[str, list[TarEntry]] = defaultdict(list)
    for entry in tar.entries.values():
        key, suffix = split_key(entry.name)
        if paths and not paths.keeps(entry.name):
            skipped[EXCLUDED] += 1
        elif "." + suffix in IMAGE_SUFFIXES:
            images[key].append(entry)
        else:
            skipped[other_suffix(entry.name)] += 1
    for key, entries in images.items():
        metadata = _parse_metadata(labels.get(key, {}))
        if len(entries) > 1:
            skipped["images that share a key"] += len(entries)
        elif (label := metadata.get("label")) is None:
            skipped["images without a class"] += 1
        else:
            path = tar.stored(entries[0])
            name = metadata.get("split", "").strip()
            split = split_named(name)
            if name and split is None:
                raise DataError(
                    f"{path}: the split is {name!r}; expected train, validation, test, or nothing.", path=path
                )
            yield LabeledImage(
                path=path,
                label=label,
                split=split,
                group=metadata.get("group") or None,
            )


def _parse_metadata(files: dict[str, bytes]) -> dict[str, str]:
    """Return label, split, and group from a sample's `.cls` and `.json`, if they are texts or whole numbers."""
    try:
        found = json.loads(files["json"]) if "json" in files else {}
        text = files["cls"].decode().strip() if "cls" in files else ""
    except (ValueError, RecursionError):
        return {}
    content = {header_key(key): value for key, value in found.items()} if isinstance(found, dict) else {}
    group = content.get("group")
    metadata = {"split": content.get("split"), "group": None if names_no_group(group) else group}
    metadata["label"] = text or next((content[key] for key in LABEL_KEYS if key in content), None)
    return {
        key: str(value)
        for key, value in metadata.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    }

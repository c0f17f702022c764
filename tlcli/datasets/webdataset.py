"""DATA as WebDataset's shards: samples are files of a tar with one key, the path up to the first dot of a file's name.

One of them is the image; its class stands as text in `.cls`, or in `.json` under `label`, `class` or `cls`, beside
`split` and `group`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from tlcli.datasets.image_files import IMAGE_SUFFIXES
from tlcli.datasets.tables import SPLIT_NAMES, LabeledImage
from tlcli.datasets.tars import Entry, Tar, key_of
from tlcli.errors import DataError

LABELS = ("label", "class", "cls")
"""Keys of a `.json` that may name the class; the first that is there counts."""


def labeled_in(tar: Tar, skipped: Counter[str]) -> Iterator[LabeledImage]:
    """The samples of a tar, in their order; what is passed over is counted.

    Raises:
        DataError: a sample's split is none.
    """
    skipped += tar.skipped
    labels: dict[str, dict[str, bytes]] = defaultdict(dict)
    for name, content in tar.labels.items():
        key, suffix = key_of(name)
        labels[key][suffix] = content
    images: dict[str, list[Entry]] = defaultdict(list)
    for entry in tar.entries.values():
        key, suffix = key_of(entry.name)
        if "." + suffix in IMAGE_SUFFIXES:
            images[key].append(entry)
        else:
            skipped["not images by their suffix"] += 1
    for key, entries in images.items():
        about = _about(labels.get(key, {}))
        if len(entries) > 1:
            skipped["images that share a key"] += len(entries)
        elif (label := about.get("label")) is None:
            skipped["images without a class"] += 1
        else:
            path = tar.stored(entries[0])
            split = about.get("split")
            if split and split.lower() not in SPLIT_NAMES:
                raise DataError(f"{path}: split is {split!r}; expected train, validation, test, or nothing.", path=path)
            yield LabeledImage(
                path=path,
                label=label,
                split=SPLIT_NAMES[split.lower()] if split else None,
                group=about.get("group") or None,
            )


def _about(files: dict[str, bytes]) -> dict[str, str]:
    """Label, split and group of a sample, as far as its `.cls` and `.json` say them as text or as whole numbers."""
    try:
        found = json.loads(files["json"]) if "json" in files else {}
        text = files["cls"].decode().strip() if "cls" in files else ""
    except (ValueError, RecursionError):
        return {}
    known = found if isinstance(found, dict) else {}
    named = {"split": known.get("split"), "group": known.get("group")}
    named["label"] = text or next((known[key] for key in LABELS if key in known), None)
    return {
        key: str(value)
        for key, value in named.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    }

"""Names of classes: one form of names that are written differently, names that look the same, and numbers.

A class is identified by its name in Unicode's composed form (NFC) without surrounding spaces. Two classes whose names
differ only in case, spaces, or invisible characters are most likely one, so they are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tlcli.datasets.labeled_image import LabeledImage
from tlcli.errors import DataError

ValueT = TypeVar("ValueT")

NO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Spaces, joiners, and marks of direction that have no width; they have no effect at the ends of a name."""
INVISIBLE = str.maketrans("", "", "\u200b\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e\ufe0e\ufe0f")
"""Also invisible within a name; joiners are not, since they change letters and emoji."""
NUMBER = re.compile(r"-?\d{1,18}(\.\d+)?")


def unify_class_names(
    images: Sequence[LabeledImage], known: Sequence[str] | None, notes: list[str]
) -> list[LabeledImage]:
    """Give the images of a class the same name, however it is written.

    Args:
        images: The images as they were read.
        known: The classes of a run, which keep their names; None if the images define the classes.
        notes: Receives which names are written in several forms.

    Raises:
        DataError: Two names look the same.
    """
    first: dict[str, LabeledImage] = {}
    for image in images:
        first.setdefault(image.label, image)
    seen: dict[str, LabeledImage] = {}
    if known is None:
        for name, image in first.items():
            other = seen.setdefault(appearance(name), image)
            if _composed(other.label) != _composed(name):
                raise _look_alike_error(image, other)
    names = {name: _known_name(image, known or ()) for name, image in first.items()}
    if several := [name for name, count in Counter(names.values()).items() if count > 1]:
        notes.append(f"class names written in several forms, each read as one class: {', '.join(several)}")
    if all(old == new for old, new in names.items()):
        return list(images)
    return [replace(image, label=names[image.label]) for image in images]


def _known_name(image: LabeledImage, known: Sequence[str]) -> str:
    """Return the known name of an image's class; its own name in standard form if there is none."""
    name = standard_name(image.label)
    if image.label in known or name in known:
        return image.label if image.label in known else name
    for other in known:
        if standard_name(other) == name:
            return other
    for other in known:
        if appearance(other) == appearance(name):
            raise DataError(
                f"class {image.label!r} of {image.path} is not one of the {len(known)} classes of the run, but looks "
                f"like {other!r}: they differ only in case or spaces. Rename it to {other!r}.",
                path=image.path,
            )
    return name


def standard_name(name: str) -> str:
    """Return a name in Unicode's composed form, without surrounding spaces and invisible characters."""
    text = _composed(name)
    while (inner := text.strip().strip(NO_WIDTH)) != text:
        text = inner
    return text or name


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def appearance(name: str) -> str:
    """Return a text that is the same for names that look the same."""
    return " ".join(standard_name(name).translate(INVISIBLE).split()).casefold()


def _look_alike_error(image: LabeledImage, other: LabeledImage) -> DataError:
    return DataError(
        f"the classes {other.label!r} (such as {other.path}) and {image.label!r} (such as {image.path}) look the same: "
        "they differ only in case, spaces, or invisible characters. Give both the same name; if they are "
        "different classes, rename one of them.",
        path=image.path,
    )


def reading_order(names: Iterable[str]) -> list[int]:
    """Return the positions of class names in the order for reading: numbers by value, then other names as they are."""

    def key(pair: tuple[int, str]) -> tuple[bool, float, int]:
        position, name = pair
        number = NUMBER.fullmatch(name)
        return (number is None, float(name) if number else 0.0, position)

    return [position for position, _ in sorted(enumerate(names), key=key)]


def in_reading_order(by_name: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """Return a mapping from class names in the order for reading."""
    names = list(by_name)
    return {names[position]: by_name[names[position]] for position in reading_order(names)}

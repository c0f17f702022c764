"""Recognize names of folders that are not classes: splits, masks, dates, and others."""

from __future__ import annotations

import re

from tlcli.datasets.labeled_image import SPLIT_NAMES

_AFFIXES = (
    "set|sets|data|dataset|datasets|image|images|img|imgs|photo|photos|picture|pictures|pic|pics|seg|split|splits|"
    "subset|part|folder|dir|file|files|jpg|jpeg|png|cropped|resized"
)
_SPLIT = "|".join(sorted([*SPLIT_NAMES, "trainval"], key=len, reverse=True))
_WORD = re.compile(rf"(?:{_AFFIXES})*?({_SPLIT})(?:{_AFFIXES})*")
_AFFIX = re.compile(rf"(?:{_AFFIXES})+")
_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_DATE = re.compile(r"(?:19|20)\d\d(?:[-_. ]?\d\d){0,2}")
_HOLD_OUT = re.compile(r"hold[\W_]*out", re.IGNORECASE)

MASK_NAME = re.compile(
    r"(?!(?:with|no|not|wear\w*|face|surgical|cloth|(?:in)?correct\w*|improper\w*)[\W_]|without)(?:.*[\W_])?(?:gt|mask|label|annotation|segmentation(?:class|object)?|ground[\W_]?truth|annot|matte|trimap)s?(?:[\W_\d].*)?",
    re.IGNORECASE,
)
"""Matches names of folders that hold masks or other annotations of images."""


NO_CLASS = re.compile(
    r"(?:un[\W_]?lab+el+ed|unsup(?:ervised)?|extra|examples?|samples?|demos?|docs?|documentation|assets|static|media|"
    r"fig(?:ure)?s?|screen[\W_]?shots?|readme|logos?|previews?|thumb(?:nail)?s?|notebooks?|scripts?|src|source|code|"
    r"models?|weights|checkpoints|results?|outputs?|runs|logs|tests?|annotations?|meta(?:data)?|gallery|misc|"
    r"(?:sample|example|demo|doc|readme|paper)[\W_]?(?:image|img|photo|picture|pic|figure|data)s?)",
    re.IGNORECASE,
)
"""Matches names of folders that are not classes if they are beside a folder with many subfolders."""


def split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the split that a folder's name stands for, and the other words in it; None if it names no split.

    Digits, and words such as `set`, `data`, or `images`, are ignored.
    """
    if MASK_NAME.fullmatch(name):
        return None
    splits, rest = [], []
    for word in _LETTERS.findall(_CAMEL.sub(" ", _HOLD_OUT.sub("holdout", name))):
        folded = word.casefold()
        if match := _WORD.fullmatch(folded):
            splits.append(SPLIT_NAMES.get(match[1], "train"))
        elif not _AFFIX.fullmatch(folded):
            rest.append(folded)
    if sorted(splits) == ["train", "validation"]:  # images to train on, apart from a test set
        splits = ["train"]
    return (splits[0], tuple(rest)) if len(splits) == 1 else None


def is_date(name: str) -> bool:
    """Return whether a name is that of a year, a month, or a day."""
    return bool(_DATE.fullmatch(name))

"""Interpret the values of a table's columns: classes, splits, and groups.

Columns are long but hold few different values, so each different value is interpreted once.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlcli.datasets.folder_names import split_of
from tlcli.datasets.labeled_image import split_named
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.errors import DataError
from tlcli.settings.columns import NO_COLUMN

NOT_A_NUMBER = frozenset({"nan", "NaN", "<NA>", "NaT", "#N/A", "#NA"})
"""Texts that programs write for a missing value."""
NO_GROUP = NOT_A_NUMBER | {"NA", "N/A", "n/a", "NULL", "null", "None", "none"}
"""Texts that mean that an image has no group."""
FLAGS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True} | {
    "false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False
}  # fmt: skip
"""Lowercase texts of true and false."""
SPLIT_OF_FLAG = {"valid": "validation", "val": "validation", "validation": "validation", "test": "test"}
"""The split that true stands for, by header without `is_`."""
NO_CLASS = -1
"""Number of an image without a class in Hugging Face's `datasets`."""
WHOLE = re.compile(r"(-?\d+)\.0*")


def labels(table: RawTable, name: str) -> list[str]:
    """Return the class of each row.

    Raises:
        DataError: A class is missing, a list, or not text, or two values may be the same class.
    """
    values = table.column(name)
    names = table.class_names.get(name)
    missing = _find(values, lambda value: _is_missing(value) or (names is not None and value == NO_CLASS))
    if missing:
        raise DataError(
            f"{table.path}, {table.describe_row(missing[0])}: the column {name} is empty ({_quote(values[missing[0]])})"
            + (f", as in {len(missing):,} rows" if len(missing) > 1 else "")
            + ". Fill in the class, or remove the row.",
            path=table.path,
        )
    texts = _class_texts(table, name, values)
    return [texts[value] for value in values]


def optional_labels(table: RawTable, name: str) -> list[str | None]:
    """Return the class of each row; None where it is missing.

    Raises:
        DataError: A class is a list or not text, or two values may be the same class.
    """
    values = [None if _is_missing(value) else value for value in table.column(name)]
    texts = _class_texts(table, name, values)
    return [texts.get(value) for value in values]


def groups(table: RawTable, name: str) -> list[str | None]:
    """Return the group of each row; None where it is missing.

    Raises:
        DataError: A group is a list or not text, or two values may be the same group.
    """
    values = [None if names_no_group(value) else value for value in table.column(name)]
    texts = _texts(table, name, values, lambda value: str(value).strip())
    return [texts.get(value) for value in values]


def splits(table: RawTable, name: str, flag: str) -> list[str | None]:
    """Return the split of each row; None where it is missing.

    Args:
        table: The table.
        name: The column.
        flag: Its header in lowercase without `is_`: the split that true stands for.

    Raises:
        DataError: A value is not the name of a split, nor true or false.
    """
    values = [None if _is_missing(value) else value for value in table.column(name)]
    found = {value: _split(value, flag) for value in _different(table, name, values)}
    for value, split in found.items():
        if split is None:
            raise DataError(
                f"{table.path}, {table.describe_row(values.index(value))}: the split is {_quote(value)} in the column "
                f"{name}; expected train, validation, test, or nothing{_advice(flag)}. Correct it, name another column "
                f"with --split-column NAME, or ignore it with --split-column {NO_COLUMN}.",
                path=table.path,
            )
    return [found.get(value) for value in values]


def names_no_group(value: object) -> bool:
    """Return whether a value in a column of groups means that there is none."""
    return _is_missing(value) or (isinstance(value, str) and value.strip() in NO_GROUP)


def are_splits(values: Iterable[object]) -> bool:
    """Return whether all values that are not missing are names of splits, at least two of them."""
    found = set()
    for value in values:
        if not _is_missing(value):
            split = split_named(value) if isinstance(value, str) else None
            if split is None:
                return False
            found.add(split)
    return len(found) > 1


def are_flags(values: Iterable[object]) -> bool:
    """Return whether all values are true or false, and both occur."""
    found = set()
    for value in values:
        if (flag := FLAGS.get(str(value).strip().lower())) is None:
            return False
        found.add(flag)
    return len(found) > 1


def _split(value: Any, flag: str) -> str | None:  # noqa: ANN401 - any value of a table
    text = str(value).strip().lower()
    if split := split_named(text):
        return split
    if text not in FLAGS:
        meaning = split_of(str(value))  # such as `Train set`
        return meaning[0] if meaning is not None and not meaning[1] else None
    if flag in SPLIT_OF_FLAG:
        return SPLIT_OF_FLAG[flag] if FLAGS[text] else "train"
    return "train" if flag.startswith("train") and FLAGS[text] else None


def _advice(flag: str) -> str:
    """Return what is unclear about a column with true and false."""
    return " (false may stand for validation or test)" if flag.startswith("train") else ""


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in NOT_A_NUMBER or not value.strip()
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _find(values: Sequence[object], wanted: Callable[[object], bool]) -> list[int]:
    """Return the indices of the values for which `wanted` is true."""
    try:
        different = {value for value in set(values) if wanted(value)}
    except TypeError:  # lists cannot be in a set
        return [index for index, value in enumerate(values) if wanted(value)]
    return [index for index, value in enumerate(values) if value in different] if different else []


def _different(table: RawTable, name: str, values: Sequence[Any]) -> dict[Any, None]:
    """Return the different values that are not missing, in order; lists, objects, and bytes are refused."""
    kinds = {type(value) for value in values} - {type(None)}
    for kind, what in ((list, "a list"), (dict, "an object"), (bytes, "bytes that are not UTF-8")):
        if kind in kinds:
            value = next(value for value in values if isinstance(value, kind))
            raise _refused(table, name, value, what, "Write one text or number per row.")
    if len(kinds & {bool, int, float}) > 1:
        examples = ", ".join(_quote(next(one for one in values if type(one) is kind)) for kind in kinds)
        raise DataError(
            f"{table.path}: the column {name} mixes types ({examples}), so values such as 1, 1.0, and true may mean "
            "the same thing. Write all of them as text.",
            path=table.path,
        )
    return dict.fromkeys(value for value in values if value is not None)


def _texts(table: RawTable, name: str, values: Sequence[Any], text_of: Callable[[Any], str]) -> dict[Any, str]:
    """Return the text of each different value; values that may mean the same thing are refused."""
    texts = {value: text_of(value) for value in _different(table, name, values)}
    seen: dict[str, Any] = {}
    for value, text in texts.items():
        lower = text.strip().lower()
        whole = WHOLE.fullmatch(lower)
        key = whole[1] if whole else {"true": "1", "false": "0"}.get(lower, lower)
        other = seen.setdefault(key, value)
        if texts[other].strip().lower() != lower or type(other) is not type(value):
            rows = [table.describe_row(values.index(one)) for one in (other, value)]
            raise DataError(
                f"{table.path}: the column {name} has {_quote(other)} in {rows[0]} and {_quote(value)} in {rows[1]}, "
                "which may mean the same thing. Write all values in one form.",
                path=table.path,
            )
    return texts


def _class_texts(table: RawTable, name: str, values: Sequence[Any]) -> dict[Any, str]:
    """Return the class that each different value stands for; lists are refused."""
    names = table.class_names.get(name)
    texts = _texts(table, name, values, (lambda value: _class_name(names, value)) if names else str)
    for value in texts:
        if isinstance(value, str) and _is_list(value):
            raise _refused(table, name, value, "a list", "Write one class per row.")
    return texts


def _class_name(names: Sequence[str], value: object) -> str:
    """Return the name that a number stands for, or its text if it has none."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)


def _is_list(text: str) -> bool:
    """Return whether a text is a list or a dictionary as Python and JSON write it."""
    if text.strip()[:1] not in {"[", "{", "("}:
        return False
    try:
        return isinstance(ast.literal_eval(text.strip()), (list, dict, set, tuple))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _refused(table: RawTable, name: str, value: object, what: str, remedy: str) -> DataError:
    values = table.column(name)
    row = table.describe_row(next(index for index, other in enumerate(values) if other == value))
    return DataError(
        f"{table.path}, {row}: the column {name} holds {what}, {_quote(value)}; expected text or a number. {remedy}",
        path=table.path,
    )


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

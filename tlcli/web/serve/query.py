"""The query of a request: the row options of `predict`, under the same names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import QueryParams

from tlcli.errors import UsageError
from tlcli.settings import PredictSettings

SWITCHES = {"true": True, "1": True, "": True, "false": False, "0": False}


def _switch(text: str) -> bool:
    return SWITCHES[text.lower()]


CONVERTERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "top": (int, "a whole number"),
    "probabilities": (_switch, "true or false"),
    "min_confidence": (float, "a number"),
    "sets": (float, "a number"),
    "unknown_rate": (float, "a number"),
}
"""How each parameter is read, and what it is; `target_precision`, which may be repeated, is text."""
REPEATED = "target_precision"
FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


def predict_settings(run: Path, query: QueryParams) -> PredictSettings:
    """Return the settings of `predict` that a query asks for.

    Args:
        run: The run.
        query: The query.

    Raises:
        UsageError: A parameter is unknown, repeated, or has an invalid value.
    """
    values: dict[str, Any] = {}
    for name, text in query.multi_items():
        if name == REPEATED:
            values[name] = (*values.get(name, ()), text)
        elif name in values:
            raise UsageError(f"{name} is given twice.")
        elif name in CONVERTERS:
            values[name] = _converted(name, text)
        elif name != "token":
            raise UsageError(f"there is no parameter {name[:40]!r}; expected {', '.join([*CONVERTERS, REPEATED])}.")
    return PredictSettings(run=run, inputs=("-",), **values)


def as_parameters(message: str) -> str:
    """Write the options that a message names as parameters: `--min-confidence` as `min_confidence`."""
    return FLAG.sub(lambda match: match[1].replace("-", "_"), message)


def _converted(name: str, text: str) -> object:
    convert, expected = CONVERTERS[name]
    try:
        return convert(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{name} is {text[:40]!r}; expected {expected}.") from error

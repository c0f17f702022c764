"""Options that take one number for all classes, or numbers for single classes, such as `0.98` and `cat=0.99`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tlcli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ClassValues:
    """A number for each class."""

    others: float | None = None
    """The number of classes without a number of their own; None if they have none."""
    classes: dict[str, float] = field(default_factory=dict)
    """The numbers of single classes, by name."""

    def of(self, name: str) -> float | None:
        """Return the number of a class."""
        return self.classes.get(name, self.others)

    def check_names(self, option: str, known: Sequence[str]) -> None:
        """Raise a UsageError if a class is not one of `known`."""
        for name in self.classes:
            if name not in known:
                raise UsageError(f"{option} {name}={self.classes[name]:g}: no such class; found {', '.join(known)}.")


def parse_class_values(option: str, texts: Sequence[str], *, expected: str) -> ClassValues:
    """Parse the values of an option that may be given several times.

    Args:
        option: The option, for messages.
        texts: Such as `0.98`, at most once, and `cat=0.99`. Names may contain `=`.
        expected: What the numbers should be, for messages.

    Raises:
        UsageError: A text is not a number, or a class has two.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"{option} {text}: expected {expected}, or CLASS={expected}.") from None
        if name in found:
            raise UsageError(f"{option} was given twice for {name or 'all classes'}.")
        found[name] = value
    return ClassValues(others=found.pop("", None), classes=found)

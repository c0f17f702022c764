"""Options that take one number for all classes, or numbers for single classes, such as `0.98` and `cat=0.99`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tlcli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ClassValues:
    """A number for each class."""

    option: str
    """The option that they were given with, for messages."""
    others: float | None = None
    """The number of classes without a number of their own; None if they have none."""
    classes: dict[str, float] = field(default_factory=dict)
    """The numbers of single classes, by name."""

    def of(self, names: Sequence[str]) -> dict[str, float]:
        """Return the number of each class that has one.

        Raises:
            UsageError: A class is not one of `names`.
        """
        for name in self.classes:
            if name not in names:
                raise UsageError(
                    f"{self.option} {name}={self.classes[name]:g}: no such class; found {', '.join(names)}."
                )
        others = {} if self.others is None else dict.fromkeys(names, self.others)
        return others | self.classes

    def factors(self, names: Sequence[str]) -> tuple[float, ...] | None:
        """Return a number for each class, 1 for those without one; None if all are without. Raises as `of` does."""
        found = self.of(names)
        return tuple(found.get(name, 1.0) for name in names) if found else None


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
    return ClassValues(option=option, others=found.pop("", None), classes=found)

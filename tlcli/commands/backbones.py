"""backbones: the networks to choose from."""

from __future__ import annotations

from tlcli.backbones.zoo import BackboneListing, list_backbones
from tlcli.errors import UsageError


def backbones(pattern: str | None = None) -> list[BackboneListing]:
    """The backbones whose name contains `pattern`, or matches it where it has * or ?.

    Raises:
        UsageError: there is none.
    """
    listings = list_backbones(pattern)
    if not listings:
        raise UsageError(f"no backbone's name contains {pattern!r}. Try a part of one, such as resnet or efficientnet.")
    return listings

"""`tlcli backbones`: list the available networks."""

from __future__ import annotations

from tlcli.backbones.zoo import BackboneListing, list_backbones
from tlcli.errors import UsageError


def backbones(pattern: str | None = None) -> list[BackboneListing]:
    """List the backbones whose name contains `pattern`, or matches it if it has * or ?.

    Raises:
        UsageError: No name matches.
    """
    listings = list_backbones(pattern)
    if not listings:
        raise UsageError(f"no backbone matches {pattern!r}. Try a part of a name, such as resnet or efficientnet.")
    return listings

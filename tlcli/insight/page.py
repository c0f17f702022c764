"""inspect.html: one self-contained page about a network's units."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import jinja2
from PIL import Image

QUALITY = 80
"""Of the WebPs in the page."""


@dataclass(frozen=True, kw_only=True)
class UnitPanel:
    """What one network's unit looks for, on the page."""

    stage: str | None
    """"before" or "after" fine-tuning; None where there is one network."""
    caption: str
    patches: str
    """Data URI of 3 x 3 patches without gaps."""
    projections: str
    """Data URI of as many projections."""
    rows: list[dict[str, Any]]
    """The lines of `units.jsonl`, each with `image`, the key of its thumbnail."""


@dataclass(frozen=True, kw_only=True)
class UnitCard:
    """A unit on the page."""

    number: int
    panels: list[UnitPanel]


@dataclass(frozen=True, kw_only=True)
class LayerSection:
    """A layer on the page."""

    number: int
    name: str
    facts: str
    units: list[UnitCard]
    alive: int
    """Units that don't answer every image alike."""
    of: int
    """Units there are."""
    mapped: bool
    """Whole images stand there, with the activation on top."""
    compared: bool = False
    """Its units are shown before and after fine-tuning."""
    frozen: bool = False
    """It is the same before and after."""
    filters: str | None = None
    """Data URI of the layer's filters, where they can be seen."""
    plain: bool = False
    """Its projections are plain gradients, for want of an activation."""


def as_webp(image: Image.Image) -> str:
    """An RGB image as a data URI."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return data_uri(file.getvalue(), "webp")


def as_png(image: Image.Image) -> str:
    """An image as a data URI, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "png")


def data_uri(content: bytes, kind: str) -> str:
    """An image's bytes for use in a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def inspect_page(*, name: str, lead: str, layers: list[LayerSection], thumbnails: dict[str, str], kept: int) -> str:
    """The page.

    Args:
        name: Of the run or backbone.
        lead: A sentence below the title.
        layers: In order.
        thumbnails: Data URIs of the source images, by the key in `rows`.
        kept: Patches of a unit at most.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcli", "insight"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("inspect.html")
    return template.render(name=name, lead=lead, layers=layers, thumbnails=thumbnails, kept=kept)

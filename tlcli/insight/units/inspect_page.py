"""Render inspect.html, a self-contained page about a network's units."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import jinja2
from PIL import Image

WEBP_QUALITY = 80
"""Quality of the WebP images in the page, from 0 to 100."""


@dataclass(frozen=True, kw_only=True)
class UnitPanel:
    """A unit of one network on the page."""

    stage: str | None
    """"before" or "after" fine-tuning; None if there is only one network."""
    caption: str
    patches: str
    """Data URI of the grid of 3 x 3 patches without gaps."""
    projections: str
    """Data URI of the grid of their projections."""
    rows: list[dict[str, Any]]
    """The lines of `units.jsonl`, each with `image`, the key of its thumbnail, and `size`, the image's in pixels."""


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
    """Units that are not dead."""
    of: int
    """All units of the layer."""
    mapped: bool
    """Patches are whole images with the activation map as an overlay."""
    compared: bool = False
    """Units are shown before and after fine-tuning."""
    frozen: bool = False
    """Fine-tuning did not change the layer."""
    filters: str | None = None
    """Data URI of the layer's filters, if they can be shown."""
    plain: bool = False
    """Projections are plain gradients, because no activation function precedes the layer."""


def as_webp(image: Image.Image) -> str:
    """Encode an RGB image as the data URI of a WebP file."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=WEBP_QUALITY)
    return data_uri(file.getvalue(), "webp")


def as_png(image: Image.Image) -> str:
    """Encode an image losslessly as the data URI of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "png")


def data_uri(content: bytes, kind: str) -> str:
    """Return a data URI with the bytes of an image file.

    Args:
        content: The bytes of the file to embed.
        kind: Subtype of the media type, such as "png".
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def inspect_page(*, name: str, lead: str, layers: list[LayerSection], thumbnails: dict[str, str], top_k: int) -> str:
    """Render the page.

    Args:
        name: Name of the run or backbone.
        lead: Text below the title.
        layers: The layers, in forward order.
        thumbnails: Data URIs of the source images, by the key `image` of `rows`.
        top_k: Maximum number of patches per unit.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcli", "insight/units"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("inspect.html")
    return template.render(name=name, lead=lead, layers=layers, thumbnails=thumbnails, top_k=top_k)

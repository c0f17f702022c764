"""A network by its name: its description of the input, and its modules with random weights."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from tlcli.backbones.alexnet import AlexNet
from tlcli.backbones.lenet import LeNet5
from tlcli.errors import UsageError

NON_TIMM: dict[str, type[AlexNet] | type[LeNet5]] = {"torchvision/alexnet": AlexNet, "lenet5": LeNet5}
# What a network raises, while it is built or run, that can't take a size.
BUILD_ERRORS = (AssertionError, RuntimeError, ValueError, TypeError, IndexError)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network's pretrained_cfg says of the images it expects."""

    channels: int
    height: int
    """pixels"""
    width: int
    """pixels"""
    mean: tuple[float, ...]
    """subtracted from each channel, for values in [0, 1]"""
    std: tuple[float, ...]
    interpolation: str
    """"bicubic", "bilinear", ... when resizing"""
    crop_fraction: float
    """of the resized image's side that the center crop keeps (timm's crop_pct)"""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network ready for use: in eval mode, on the CPU, in float32."""

    name: str
    """as the user would type it"""
    model: nn.Module
    input: InputSpec
    origin: str
    """where the weights came from, in one phrase for people"""
    arguments: dict[str, Any] = field(default_factory=dict)
    """what timm.create_model needs beyond the name and the classes to build this network again"""
    traced: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """what `rows.plan_of` found out, which takes a while"""


def pretrained_config(name: str) -> dict[str, Any]:
    """The pretrained_cfg of a name.

    Raises:
        UsageError: There is no such backbone; the closest names are given.
    """
    if name in NON_TIMM:
        return dict(NON_TIMM[name].pretrained_cfg)
    if ":" not in name and "/" not in name and timm.is_model(name):
        try:
            config = get_pretrained_cfg(name)
        except RuntimeError:  # a known architecture with an unknown tag
            config = None
        if config is not None:
            return dataclasses.asdict(config)
    known = [*NON_TIMM, *timm.list_models()]
    close = difflib.get_close_matches(name, known, n=3) or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(close)}? " if close else ""
    raise UsageError(f"There is no backbone {name!r}. {hint}`tlcli backbones` lists them.")


def build_backbone(
    name: str,
    config: dict[str, Any],
    *,
    classes: int | None,
    size: int | None,
    arguments: Mapping[str, Any] | None = None,
) -> Backbone:
    """The network with random weights, with an input of `size` pixels."""
    arguments = dict(arguments or {})
    channels, height, width = config.get("input_size") or (3, 224, 224)
    native = height
    resized = size is not None and (size, size) != (height, width)
    if size is not None and resized:
        if size < 1:
            raise UsageError(f"--size {size} is no size in pixels.")
        if config.get("fixed_input_size"):
            arguments["img_size"] = size
        height = width = size
    spec = InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=tuple(config.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(config.get("std") or (0.229, 0.224, 0.225)),
        interpolation=str(config.get("interpolation") or "bicubic"),
        crop_fraction=float(config.get("crop_pct") or 0.875),
    )
    try:
        model = create_network(
            name, config, arguments if classes is None else {**arguments, "num_classes": classes}
        ).eval()
        if resized:
            _try(model, channels, height)
    except BUILD_ERRORS as error:
        if not resized:
            raise
        works = _sizes_that_work(name, config, dict(arguments), near=height, native=native)
        raise UsageError(
            f"{name} can't take images of {height} x {height} pixels. "
            f"{'Sizes that work' if len(works) > 1 else 'The size that works'}: {', '.join(map(str, works))}."
        ) from error
    return Backbone(name=name, model=model, input=spec, origin="random weights", arguments=arguments)


def _sizes_that_work(
    name: str, config: dict[str, Any], arguments: dict[str, Any], *, near: int, native: int
) -> list[int]:
    """The network's own size, and multiples of it or of 32 around the one asked for that it takes."""
    around = [near // 32 * 32, (near // 32 + 1) * 32, (near // native) * native, (near // native + 1) * native]
    works = {native}
    for side in sorted({side for side in around if 0 < side < 2 * near + 64} - works):
        with torch.device("meta"), contextlib.suppress(*BUILD_ERRORS):
            arguments |= {"img_size": side} if "img_size" in arguments else {}
            _try(create_network(name, config, arguments).eval(), int(config["input_size"][0]), side)
            works.add(side)
    return sorted(works)


def _try(model: nn.Module, channels: int, side: int) -> None:
    """Pass an empty image through: whatever the network can't take raises here."""
    device = next(model.parameters()).device
    with torch.no_grad():
        model(torch.zeros(1, channels, side, side, device=device))


def create_network(name: str, config: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The bare network, on the current default device."""
    if name in NON_TIMM:
        return NON_TIMM[name](**{key: value for key, value in arguments.items() if key == "num_classes"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # renamed models, and what other libraries say while a network is built
        model: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg=config, **arguments)
    return model

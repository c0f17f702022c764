"""Build a network by name: the description of its input, and its modules with random weights."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from tlcli.backbones.alexnet import AlexNet
from tlcli.backbones.backbone import Backbone
from tlcli.backbones.input_spec import InputSpec
from tlcli.backbones.lenet import LeNet5
from tlcli.errors import UsageError

NON_TIMM: dict[str, type[AlexNet] | type[LeNet5]] = {"torchvision/alexnet": AlexNet, "lenet5": LeNet5}
"""Backbones that timm does not provide, by name."""
BUILD_ERRORS = (AssertionError, RuntimeError, ValueError, TypeError, IndexError)
"""Exceptions that a network raises, when it is built or run, if it does not support an input size."""


def pretrained_config(name: str) -> dict[str, Any]:
    """Return the pretrained_cfg of a backbone, by name.

    Raises:
        UsageError: There is no such backbone; the message lists the closest names.
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
    raise UsageError(f"There is no backbone and no run {name!r}. {hint}`tlcli backbones` lists all backbones.")


def build_backbone(
    name: str,
    config: dict[str, Any],
    *,
    classes: int | None,
    size: int | None,
    arguments: Mapping[str, Any] | None = None,
) -> Backbone:
    """Build a network with random weights.

    Args:
        name: Name of the backbone.
        config: The network's `pretrained_cfg`, in timm's form.
        classes: Number of outputs; None for the number in `config`.
        size: Side of the input in pixels; None for the size in `config`.
        arguments: More arguments of `timm.create_model`; None for no others.

    Raises:
        UsageError: The network does not support this size; the message lists supported sizes.
    """
    arguments = dict(arguments or {})
    channels, height, width = config.get("input_size") or (3, 224, 224)
    native = height
    resized = size is not None and (size, size) != (height, width)
    if size is not None and resized:
        if size < 1:
            raise UsageError(f"--size {size} is invalid: expected at least 1 pixel.")
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
            _check_input(model, channels, height)
    except BUILD_ERRORS as error:
        if not resized:
            raise
        sizes = _supported_sizes(name, config, dict(arguments), requested=height, native=native)
        raise UsageError(
            f"{name} does not support images of {height} x {height} pixels. "
            f"Supported size{'s' if len(sizes) > 1 else ''}: {', '.join(map(str, sizes))}."
        ) from error
    return Backbone(name=name, build=lambda: model, input=spec, origin="random weights", arguments=arguments)


def _supported_sizes(
    name: str, config: dict[str, Any], arguments: dict[str, Any], *, requested: int, native: int
) -> list[int]:
    """Return the native size, and the supported multiples of it and of 32 next to the requested size."""
    nearby = [
        requested // 32 * 32,
        (requested // 32 + 1) * 32,
        (requested // native) * native,
        (requested // native + 1) * native,
    ]
    supported = {native}
    for side in sorted({side for side in nearby if 0 < side < 2 * requested + 64} - supported):
        with torch.device("meta"), contextlib.suppress(*BUILD_ERRORS):
            arguments |= {"img_size": side} if "img_size" in arguments else {}
            _check_input(create_network(name, config, arguments).eval(), int(config["input_size"][0]), side)
            supported.add(side)
    return sorted(supported)


def _check_input(model: nn.Module, channels: int, side: int) -> None:
    """Run the network on an empty image, so that an unsupported size raises one of `BUILD_ERRORS`."""
    device = next(model.parameters()).device
    with torch.no_grad():
        model(torch.zeros(1, channels, side, side, device=device))


def create_network(name: str, config: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """Create the bare network, on the current default device."""
    if name in NON_TIMM:
        return NON_TIMM[name](**{key: value for key, value in arguments.items() if key == "num_classes"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about renamed models, and from other libraries while a network is built
        model: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg=config, **arguments)
    return model

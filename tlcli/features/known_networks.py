"""Networks whose outline is kept beside their features, so that a warm cache needs neither timm nor the network."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import tlcli
from tlcli.backbones import bundled_weights
from tlcli.backbones.backbone import Backbone, Cut
from tlcli.backbones.outline import Outline
from tlcli.backbones.outlined_network import make_outline, outlined_backbone, outlined_cut
from tlcli.features.cache import FeatureCache
from tlcli.features.fingerprint import weights_digest
from tlcli.features.store import FeatureStore
from tlcli.settings import NetworkSettings
from tlcli.storage.files import canonical_json, load_checksummed, save_checksummed

OUTLINE_FORMAT = 2
"""Version of `Outline`, and of what is derived from it."""
PACKAGES = ("torch", "torchvision", "timm")
"""Packages that decide how a network is built."""


def open_backbone(wanted: NetworkSettings, *, classes: int, cache: FeatureCache | None) -> Backbone:
    """Return a backbone; if everything before its head is frozen and its outline is kept, it is built when needed.

    Args:
        wanted: Name, weights, depth, size, and seed.
        classes: Number of outputs of the new head.
        cache: The cache that may hold an outline; None builds the network at once.

    Raises:
        UsageError: The name is unknown, there are no pretrained weights, or the network does not support this size.
        DataError: The weights file or folder is missing.
        ArtifactError: It cannot be read, or holds another network.
        MachineError: The weights are not on this machine, and the hub cannot be reached.
    """

    def load() -> Backbone:
        from tlcli.backbones.zoo import load_backbone

        return load_backbone(wanted.backbone, wanted.weights, classes=classes, size=wanted.input_size, seed=wanted.seed)

    outline = None
    if wanted.freeze == "all" and wanted.pretrained and cache is not None and cache.root is not None:
        outline = _find(cache.root, _file_stem(wanted.backbone, wanted.weights, wanted.input_size))
    return load() if outline is None else outlined_backbone(outline, wanted.backbone, lambda: load().model)


def cut_and_digest(backbone: Backbone, freeze: str) -> tuple[Cut, str]:
    """Cut a network, and return the digest of the weights of its prefix as well.

    Args:
        backbone: The network; it is not built if its outline is enough.
        freeze: `all`, `none`, or the number or name of a layer.

    Raises:
        UsageError: the network cannot be cut there.
    """

    def cut_network() -> Cut:
        from tlcli.backbones.cut import cut_at

        return cut_at(backbone, freeze)

    if freeze == "all" and (outline := backbone.unbuilt):
        return outlined_cut(outline, cut_network), outline.digest
    from tlcli.backbones.heads import head_modules

    cut = cut_network()
    return cut, weights_digest(cut.prefix, head_modules(backbone.model))


def keep_outline(backbone: Backbone, cut: Cut, store: FeatureStore) -> None:
    """Keep the outline of a network beside the features before its head, unless it is there already.

    Args:
        backbone: The network.
        cut: Where it is cut; nothing is kept if that is not before its head.
        store: The features of the cut's prefix.
    """
    before_head = cut.layer == cut.of and len(cut.feature_shape) == 1
    directory, request = store.directory, backbone.request
    if not before_head or directory is None or not directory.is_dir() or request is None or backbone.unbuilt:
        return
    stem = _file_stem(backbone.name, request.weights, request.size)
    if next(directory.glob(f"{stem}-*.json"), None) is not None:
        return
    outline = make_outline(backbone, cut, store.content["weights"])
    content = None if outline is None else outline.to_json()  # None, so that it is not tried again
    save_checksummed(directory, stem, ".json", json.dumps(content).encode())


def _find(root: Path, stem: str) -> Outline | None:
    """Return the outline that a cache keeps under this name, if it is still valid."""
    for directory in sorted({path.parent for path in root.glob(f"*/{stem}-*.json")}):
        content = load_checksummed(directory, stem, ".json", lambda _: None)
        try:
            outline = None if content is None else Outline.from_json(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError):  # null: a network without an outline
            continue
        if outline is not None and outline.is_current():
            return outline
    return None


def _file_stem(name: str, weights: str, size: int | None) -> str:
    """Return the name of the file for a network, by what the user asked for and what builds it."""
    content = {
        "format": OUTLINE_FORMAT,
        "name": name,
        "weights": weights if weights == "pretrained" else str(Path(weights).absolute()),
        "bundled": str(bundled_weights.weights_file(name)),
        "size": size,
        "versions": [tlcli.__version__, *map(version, PACKAGES)],
    }
    return f"network-{hashlib.sha256(canonical_json(content)).hexdigest()[:16]}"

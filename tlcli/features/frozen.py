"""A frozen prefix and its feature store: from settings to the features of any list of pictures."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tlcli.augmentation import Augmentation
from tlcli.backbones.cut import Cut, cut_at
from tlcli.backbones.engine import PrefixRunner, pick_batch_size, pick_device, pick_precision
from tlcli.backbones.zoo import Backbone, head_modules, load_backbone
from tlcli.features.extract import Extraction, extract, missing
from tlcli.features.fingerprint import fingerprint, ingredients, weights_digest
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore, check_space, nearest_cache
from tlcli.files import megabytes
from tlcli.images.augment import LIMIT
from tlcli.images.loader import PictureLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import Order
from tlcli.progress import Reporter
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings

ENGINE = "torch"
DEPTH = {"cut.layer", "cut.name", "augmentation", "seed"}
"""Ingredients in which caches of one run differ; with the cut, the weights before it differ too."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network with its weights, and where and how it runs."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    """Of frozen prefixes."""
    memo: Memo
    root: Path | None
    """The cache's directory; None where features stay in memory."""
    stores: dict[str, FeatureStore] = field(default_factory=dict)
    """Those that are open, by fingerprint: their checksums are verified once."""

    def store(self, content: dict[str, Any], shape: tuple[int, ...], report: Reporter, *, cached: bool) -> FeatureStore:
        """The store of features of `shape` that depend on `content`; in memory where not `cached`."""
        name = fingerprint(content)
        if name in self.stores:
            return self.stores[name]
        for key, value in content.items():
            report.detail(f"  ingredient {key}: {value}")
        root = self.root if cached else None
        store = self.stores[name] = FeatureStore(root, content, shape, report)
        if root is not None and not len(store) and (near := nearest_cache(root, content)):
            listing, names = near
            # Another depth is nothing to wonder about; other weights or another size may be.
            say = report.detail if DEPTH & set(names) and set(names) <= DEPTH | {"weights"} else report.note
            say(
                f"New cache: the nearest one here ({listing.directory.name[:8]}, {listing.images:,} pictures) differs "
                f"in {', '.join(names)}"
            )
        return store

    def head_device(self) -> str:
        """Where the head is fitted: with the network, except on Apple GPUs, which know no float64."""
        return "cpu" if self.device.type == "mps" else str(self.device)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A network cut into a frozen prefix and a tail, and the stores of what the prefix gives."""

    network: Network
    cut: Cut
    plain: FeatureStore
    """Of view 0."""
    augmented: FeatureStore | None
    """Of the views above 0; None where pictures aren't augmented."""
    augmentation: Augmentation | None
    seed: int

    @functools.cached_property
    def runner(self) -> PrefixRunner:
        """What runs the prefix."""
        network = self.network
        return PrefixRunner(
            self.cut.prefix,
            network.preprocessing.mean,
            network.preprocessing.std,
            device=network.device,
            precision=network.precision,
        )

    def order(self, known: FeatureStore | None = None, *, augmented: bool = False) -> Order:
        """What decoding processes do with pictures, but not with those in `known`; only `augmented` ones distort."""
        return Order(
            preprocessing=self.network.preprocessing,
            known=frozenset() if known is None else known.keys(),
            augmentation=self.augmentation if augmented else None,
            seed=self.seed,
        )


def open_network(
    network: NetworkSettings, compute: ComputeSettings, cache: CacheSettings, *, classes: int, report: Reporter
) -> Network:
    """Load the backbone.

    Args:
        network: Which backbone, with which weights.
        compute: Where it runs.
        cache: Where features are kept.
        classes: Outputs of the new head.
        report: Told what was loaded.

    Raises:
        UsageError: no such backbone.
        ArtifactError: the weights are broken.
        MachineError: weights that would need a network, or no such device.
    """
    device = pick_device(compute.device)
    precision = pick_precision(compute.precision, device)
    backbone = load_backbone(network.backbone, network.weights, classes=classes, size=network.size, seed=network.seed)
    backbone.model.to(device)
    root = cache.root() if cache.enabled else None
    return Network(
        backbone=backbone,
        preprocessing=make_preprocessing(backbone, network.fit),
        device=device,
        precision=precision,
        memo=Memo(root, report),
        root=root,
    )


def freeze_at(
    network: Network, freeze: str, report: Reporter, *, augmentation: Augmentation | None = None, seed: int = 0
) -> Frozen:
    """Cut the network, and open the stores of its prefix.

    Args:
        network: From `open_network`; what was trained in it so far stays.
        freeze: "all", "none", a layer's number or its name.
        report: Told why an existing cache doesn't serve.
        augmentation: For views above 0.
        seed: Of these views.

    Raises:
        UsageError: it can't be cut there.
        ArtifactError: the cache is broken.
    """
    backbone = network.backbone
    cut = cut_at(backbone, freeze)
    content = ingredients(
        backbone=backbone.name,
        weights=weights_digest(cut.prefix, head_modules(backbone.model)),
        layer=cut.layer,
        layer_name=cut.name,
        preprocessing=network.preprocessing,
        numerics=network.precision,
    )
    cached = cut.layer > 0  # pictures themselves are not
    plain = network.store(content, cut.feature_shape, report, cached=cached)
    augmented = None
    if augmentation is not None and augmentation.enabled:
        of_views = content | {"augmentation": augmentation.to_json(), "seed": seed}
        augmented = network.store(of_views, cut.feature_shape, report, cached=cached)
        if min(network.preprocessing.height, network.preprocessing.width) > LIMIT:
            report.warn(
                f"augmented views are made from pictures of at most {LIMIT} pixels on their short side; this network "
                f"sees {network.preprocessing.width}, so views will be less sharp than what it is judged on."
            )
    return Frozen(network=network, cut=cut, plain=plain, augmented=augmented, augmentation=augmentation, seed=seed)


def describe_cut(cut: Cut) -> str:
    """Where a network is cut, for people."""
    if cut.layer == cut.of:
        return f"frozen up to the head ({cut.of} layers)"
    if cut.layer == 0:
        return f"nothing frozen ({cut.of} layers)"
    return f"frozen up to layer {cut.layer} of {cut.of} ({cut.name})"


def describe_network(network: Network, where: str) -> str:
    """In one line for people: what was loaded, `where` it is cut, where it runs."""
    backbone = network.backbone
    side = network.preprocessing.width
    return f"{backbone.name}, {backbone.origin}, {side} px, {where}, {network.device}, {network.precision}"


def make_preprocessing(backbone: Backbone, fit: str) -> Preprocessing:
    """The backbone's own preprocessing, with the user's choice of how pictures become square."""
    spec = backbone.input
    return Preprocessing(
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        fit=fit,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
    )


def plain_features(
    frozen: Frozen, paths: Sequence[str], compute: ComputeSettings, *, verify: bool, report: Reporter
) -> tuple[Extraction, float]:
    """See to it that the plain store has the feature of every picture in `paths`.

    Returns:
        What became of each picture, and the seconds it took.

    Raises:
        MachineError: the disk has no room for them, or memory ran out.
    """
    started = time.monotonic()
    extraction, todo = missing(paths, frozen.plain, frozen.network.memo, verify=verify)
    if not todo:
        report.note(f"Features  {len(paths):,} pictures, all from the cache")
    _extract(frozen, frozen.plain, paths, todo, extraction, compute, report, name="Features")
    return extraction, time.monotonic() - started


def known_features(
    frozen: Frozen,
    store: FeatureStore,
    paths: Sequence[str],
    digests: Sequence[bytes],
    views: Sequence[int],
    compute: ComputeSettings,
    *,
    report: Reporter,
) -> tuple[Extraction, float]:
    """See to it that a store has some views of pictures whose digests are known; those it has are not looked at again.

    Args:
        frozen: The cut network.
        store: Its plain store for view 0, its augmented one for others.
        paths: Of the pictures.
        digests: Of the pictures.
        views: Which.
        compute: Where it runs.
        report: Shown the progress.

    Returns:
        What became of the pictures (`reused` and `computed` count views), and the seconds it took.
    """
    started = time.monotonic()
    todo = [(index, view) for view in views for index, digest in enumerate(digests) if (digest, view) not in store]
    extraction = Extraction(digests=list(digests), reused=len(paths) * len(views) - len(todo))
    name = "Features" if store is frozen.plain else "Views"
    _extract(frozen, store, paths, todo, extraction, compute, report, name=name)
    return extraction, time.monotonic() - started


def _extract(
    frozen: Frozen,
    store: FeatureStore,
    paths: Sequence[str],
    todo: Sequence[tuple[int, int]],
    extraction: Extraction,
    compute: ComputeSettings,
    report: Reporter,
    *,
    name: str,
) -> None:
    if not todo:
        return
    batch_size, workers = pick_batch_size(compute.batch_size, frozen.network.device), compute.worker_count()
    report.detail(f"  {workers} decoding processes, {batch_size} pictures a batch")
    _announce(store, frozen.network.root, len(todo), report)
    order = frozen.order(store, augmented=store is frozen.augmented)
    with PictureLoader(order, workers=workers) as loader:
        extract(
            paths,
            todo,
            extraction,
            run_prefix=frozen.runner.map,
            loader=loader,
            preprocessing=frozen.network.preprocessing,
            store=store,
            memo=frozen.network.memo,
            batch_size=batch_size,
            report=report,
            name=name,
        )


def _announce(store: FeatureStore, root: Path | None, pictures: int, report: Reporter) -> None:
    """Say how much will be written before it is, and stop if there is no room."""
    if root is None:
        return
    needed = pictures * store.row_bytes()
    shape = " x ".join(str(size) for size in store.shape)
    report.note(
        f"Up to {pictures:,} pictures to compute: {shape} {store.dtype} each, at most {megabytes(needed)} in "
        f"{store.directory}"
    )
    check_space(root, needed)

"""A frozen prefix and its feature store: from settings to the features of any list of pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tlcli.backbones.cut import Cut, cut_at
from tlcli.backbones.engine import PrefixRunner, pick_batch_size, pick_device, pick_precision
from tlcli.backbones.zoo import Backbone, head_modules, load_backbone
from tlcli.features.extract import Extraction, extract, missing
from tlcli.features.fingerprint import ingredients, weights_digest
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore, check_space, nearest_cache
from tlcli.files import megabytes
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings

ENGINE = "torch"


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A network cut into a frozen prefix and a tail, and the store of what the prefix gives."""

    backbone: Backbone
    cut: Cut
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    store: FeatureStore
    memo: Memo
    root: Path | None
    """The cache's directory; None where features stay in memory."""

    def head_device(self) -> str:
        """Where the head is fitted: with the network, except on Apple GPUs, which know no float64."""
        return "cpu" if self.device.type == "mps" else str(self.device)


def open_frozen(
    network: NetworkSettings, compute: ComputeSettings, cache: CacheSettings, *, classes: int, report: Reporter
) -> Frozen:
    """Load the backbone, cut it, and open its store.

    Args:
        network: Which backbone, which weights, where to cut.
        compute: Where it runs.
        cache: Where features are kept.
        classes: Outputs of the new head.
        report: Told what was loaded, and why an existing cache doesn't serve.

    Raises:
        UsageError: no such backbone, or it can't be cut there.
        ArtifactError: the weights or the cache are broken.
        MachineError: weights that would need a network, or no such device.
    """
    device = pick_device(compute.device)
    precision = pick_precision(compute.precision, device)
    backbone = load_backbone(network.backbone, network.weights, classes=classes, size=network.size, seed=network.seed)
    cut = cut_at(backbone, network.freeze)
    preprocessing = make_preprocessing(backbone, network.fit)
    report.note(
        f"{backbone.name}, {backbone.origin}, {preprocessing.width} px, frozen up to the head"
        f" ({cut.of} layers), {device}, {precision}"
    )
    content = ingredients(
        backbone=backbone.name,
        weights=weights_digest(cut.prefix, head_modules(backbone.model)),
        layer=cut.layer,
        layer_name=cut.name,
        preprocessing=preprocessing,
        numerics=precision,
    )
    for name, value in content.items():
        report.detail(f"  ingredient {name}: {value}")
    root = cache.root() if cache.enabled else None
    store = FeatureStore(root, content, cut.feature_shape, report)
    if root is not None and not len(store) and (near := nearest_cache(root, content)):
        listing, names = near
        report.note(
            f"New cache: the nearest one here ({listing.directory.name[:8]}, {listing.images:,} pictures) differs in "
            f"{', '.join(names)}"
        )
    return Frozen(
        backbone=backbone,
        cut=cut,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
        store=store,
        memo=Memo(root, report),
        root=root,
    )


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


def features_of(
    frozen: Frozen, paths: Sequence[str], compute: ComputeSettings, *, verify: bool, report: Reporter
) -> tuple[Extraction, float]:
    """See to it that the store has the feature of every picture in `paths`.

    Returns:
        What became of each picture, and the seconds it took.

    Raises:
        MachineError: the disk has no room for them, or memory ran out.
    """
    started = time.monotonic()
    extraction, todo = missing(paths, frozen.store, frozen.memo, verify=verify)
    batch_size, workers = pick_batch_size(compute.batch_size, frozen.device), compute.worker_count()
    if not todo:
        report.note(f"Features  {len(paths):,} pictures, all from the cache")
    else:
        report.detail(f"  {workers} decoding processes, {batch_size} pictures a batch")
        _announce(frozen, len(todo), report)
        preprocessing = frozen.preprocessing
        runner = PrefixRunner(
            frozen.cut.prefix,
            preprocessing.mean,
            preprocessing.std,
            device=frozen.device,
            precision=frozen.precision,
        )
        extract(
            paths,
            todo,
            extraction,
            run_prefix=runner.map,
            preprocessing=preprocessing,
            store=frozen.store,
            memo=frozen.memo,
            batch_size=batch_size,
            workers=workers,
            report=report,
        )
    return extraction, time.monotonic() - started


def _announce(frozen: Frozen, pictures: int, report: Reporter) -> None:
    """Say how much will be written before it is, and stop if there is no room."""
    if frozen.root is None:
        return
    needed = pictures * frozen.store.row_bytes()
    shape = " x ".join(str(size) for size in frozen.store.shape)
    report.note(
        f"Up to {pictures:,} pictures to compute: {shape} {frozen.store.dtype} each, at most {megabytes(needed)} in "
        f"{frozen.store.directory}"
    )
    check_space(frozen.root, needed)

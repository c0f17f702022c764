"""A frozen prefix and its feature store: from settings to the features of any list of images."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tlcli import processes
from tlcli.backbones.cut import Cut, cut_at
from tlcli.backbones.heads import head_modules
from tlcli.engines.choice import feature_numerics, pick_batch_size
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import Runner, map_padded
from tlcli.errors import MachineError
from tlcli.features.extract import Extraction, extract, missing
from tlcli.features.fingerprint import ingredients, weights_digest
from tlcli.features.listing import check_space
from tlcli.features.network import Network
from tlcli.features.shared_extraction import Work, extract_together
from tlcli.features.store import FeatureStore
from tlcli.images.augment import MAX_SHORT_SIDE
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import ComputeSettings
from tlcli.settings.augmentation import Augmentation
from tlcli.storage.files import megabytes

AHEAD_BYTES = 2**28
"""Of decoded images that may wait for the network: two seconds' work of two cores, done while it is exported."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A network cut into a frozen prefix and a tail, and the stores of what the prefix gives."""

    network: Network
    cut: Cut
    plain: FeatureStore
    """Of view 0."""
    augmented: FeatureStore | None
    """Of the views above 0; None where images aren't augmented."""
    augmentation: Augmentation | None
    seed: int

    @functools.cached_property
    def runner(self) -> Runner:
        """What runs the prefix.

        Raises:
            UsageError: the user asked for an engine that can't take this network.
        """
        network = self.network
        runner = open_runner(
            self.cut.prefix,
            network.preprocessing,
            exported=self.exported if self.cut.layer and network.engine == "onnx" else None,
            required=network.engine_asked == "onnx",
            device=network.device,
            precision=network.precision,
            report=network.report,
        )
        if self.cut.layer:
            network.engine, network.precision = runner.engine, runner.precision
        return runner

    def exported(self) -> bytes:
        """The prefix as an ONNX file, kept beside its features.

        Raises:
            ExportError: it can't be exported.
        """
        report, preprocessing = self.network.report, self.network.preprocessing
        try:
            directory = self.plain.make()
        except MachineError:  # it is read-only; what is kept there serves
            directory = self.plain.directory
        return load_or_export_onnx(
            self.cut.prefix,
            preprocessing,
            directory,
            on_export=lambda: report.note("Export    the frozen part, for ONNX Runtime"),
            on_damage=lambda path: report.warn(f"{path} is damaged (its checksum differs); it is made again."),
        )

    def decode_options(self, known: FeatureStore | None = None, *, augmented: bool = False) -> DecodeOptions:
        """What decoding processes do with images, but not with those in `known`; only `augmented` ones distort."""
        return DecodeOptions(
            preprocessing=self.network.preprocessing,
            known=frozenset() if known is None else known.keys(),
            augmentation=self.augmentation if augmented else None,
            seed=self.seed,
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
        numerics=feature_numerics(network.precision),
    )
    cached = cut.layer > 0  # images themselves are not
    plain = network.store(content, cut.feature_shape, report, cached=cached)
    augmented = None
    if augmentation is not None and augmentation.enabled:
        of_views = content | {"augmentation": augmentation.to_json(), "seed": seed}
        augmented = network.store(of_views, cut.feature_shape, report, cached=cached)
        if min(network.preprocessing.height, network.preprocessing.width) > MAX_SHORT_SIDE:
            report.warn(
                f"augmented views are made from images whose short side has at most {MAX_SHORT_SIDE} pixels; this "
                f"network sees {network.preprocessing.width}, so views are less sharp than evaluation images."
            )
    return Frozen(network=network, cut=cut, plain=plain, augmented=augmented, augmentation=augmentation, seed=seed)


def describe_cut(cut: Cut) -> str:
    """Where a network is cut, for people."""
    if cut.layer == cut.of:
        return f"frozen up to the head ({cut.of} layers)"
    if cut.layer == 0:
        return f"nothing frozen ({cut.of} layers)"
    return f"frozen up to layer {cut.layer} of {cut.of} ({cut.name})"


class Extractor(Protocol):
    """Computes features: here, or elsewhere."""

    def __call__(
        self,
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
        """Compute the features of the images and views `todo` into `store`, and complete `extraction`."""


def plain_features(
    frozen: Frozen,
    paths: Sequence[str],
    compute: ComputeSettings,
    *,
    verify: bool,
    report: Reporter,
    extractor: Extractor | None = None,
) -> tuple[Extraction, float]:
    """See to it that the plain store has the feature of every image in `paths`.

    Args:
        frozen: The cut network.
        paths: Of the images.
        compute: Where it runs.
        verify: Read every image again.
        report: Shown the progress.
        extractor: Computes what is missing; None is `extract_here`.

    Returns:
        What became of each image, and the seconds it took.

    Raises:
        MachineError: the disk has no room for them, or memory ran out.
    """
    started = time.monotonic()
    extraction, todo = missing(paths, frozen.plain, frozen.network.memo, verify=verify)
    if not todo:
        report.note(f"Features  {len(paths):,} images, all from the cache")
    _extract(frozen, frozen.plain, paths, todo, extraction, compute, report, name="Features", extractor=extractor)
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
    extractor: Extractor | None = None,
) -> tuple[Extraction, float]:
    """See to it that a store has some views of images whose digests are known; those it has are not looked at again.

    Args:
        frozen: The cut network.
        store: Its plain store for view 0, its augmented one for others.
        paths: Of the images.
        digests: Of the images.
        views: Which.
        compute: Where it runs.
        report: Shown the progress.
        extractor: Computes what is missing; None is `extract_here`.

    Returns:
        What became of the images (`reused` and `computed` count views), and the seconds it took.
    """
    started = time.monotonic()
    todo = [(index, view) for view in views for index, digest in enumerate(digests) if (digest, view) not in store]
    extraction = Extraction(digests=list(digests), reused=len(paths) * len(views) - len(todo))
    name = "Features" if store is frozen.plain else "Views"
    _extract(frozen, store, paths, todo, extraction, compute, report, name=name, extractor=extractor)
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
    extractor: Extractor | None,
) -> None:
    if processes.size() > 1:
        extract_together(
            store,
            todo,
            extraction,
            Work(
                ready=lambda: frozen.runner,
                announce=lambda images: _announce(store, frozen.network.root, images, report),
                compute=lambda part, own: extract_here(frozen, store, paths, part, own, compute, report, name=name),
            ),
        )
    elif todo:
        _announce(store, frozen.network.root, len(todo), report)
        (extractor or extract_here)(frozen, store, paths, todo, extraction, compute, report, name=name)


def extract_here(
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
    """The `Extractor` of this process."""
    batch_size, workers = pick_batch_size(compute.batch_size, frozen.network.device), compute.worker_count()
    report.detail(f"  {workers} decoding processes, {batch_size} images a batch")
    options = frozen.decode_options(store, augmented=store is frozen.augmented)
    ahead = AHEAD_BYTES // math.prod(frozen.network.preprocessing.shape)
    with ImageLoader(options, workers=workers, ahead=ahead) as loader:
        extract(
            paths,
            todo,
            extraction,
            prefix=lambda: functools.partial(map_padded, frozen.runner, size=batch_size),
            loader=loader,
            preprocessing=frozen.network.preprocessing,
            store=store,
            memo=frozen.network.memo,
            batch_size=batch_size,
            report=report,
            name=name,
        )


def _announce(store: FeatureStore, root: Path | None, images: int, report: Reporter) -> None:
    """Say how much will be written before it is, and stop if there is no room."""
    if root is None:
        return
    needed = images * store.row_bytes()
    shape = " x ".join(str(size) for size in store.shape)
    report.note(
        f"Up to {images:,} images to compute: {shape} {store.dtype} each, at most {megabytes(needed)} in "
        f"{store.directory}"
    )
    check_space(root, needed)

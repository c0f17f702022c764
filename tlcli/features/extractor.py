"""The feature extractor: a backbone cut into a frozen prefix and a tail, with the stores of the prefix's features."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tlcli.backbones.backbone import Cut
from tlcli.engines.choice import feature_numerics, pick_batch_size
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import Runner, map_padded
from tlcli.errors import MachineError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extraction import Extraction, MissingFeatures, extract, find_missing
from tlcli.features.fingerprint import ingredients
from tlcli.features.known_networks import cut_and_digest, keep_outline
from tlcli.features.shared_extraction import Work, extract_together
from tlcli.features.store import FeatureStore
from tlcli.images.augment import MAX_SHORT_SIDE
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings.augmentation import Augmentation

AHEAD_BYTES = 2**28
"""Decoded images that may wait for the network: about two seconds' work of two cores, done during the export."""

ComputeFeatures = Callable[["FeatureExtractor", MissingFeatures], None]
"""Computes missing features into their store: in this process (`FeatureExtractor.compute`) or on a cluster."""


@dataclass(kw_only=True)
class FeatureExtractor:
    """A backbone cut in two, and the stores of what its frozen prefix computes."""

    network: LoadedBackbone
    cut: Cut
    plain: FeatureStore
    """Features of view 0."""
    augmented: FeatureStore | None
    """Features of views above 0; None without augmentation."""
    augmentation: Augmentation | None
    seed: int
    """Seed of the views."""
    workers: int
    """Number of decoder processes."""
    batch_size: int | None = None
    """Images in one forward pass of the prefix; None picks by device."""
    compute_with: ComputeFeatures | None = None
    """Computes missing features; None computes them in this process."""
    _runner: Runner | None = field(default=None, init=False)
    _export: Callable[[], bytes] | None = field(default=None, init=False)
    """Returns the exported prefix instead of `exported`."""

    @property
    def runner(self) -> Runner:
        """The runner of the prefix, opened at first use.

        Raises:
            UsageError: the engine that was asked for cannot run this network.
        """
        if self._runner is None:
            network = self.network
            self._runner = open_runner(
                lambda: self.cut.prefix,
                network.preprocessing,
                exported=(self._export or self.exported) if self.cut.layer and network.engine != "torch" else None,
                requested=network.engine_requested,
                device=network.device,
                precision=network.precision,
                report=network.report,
            )
        return self._runner

    @property
    def network_as_run(self) -> LoadedBackbone:
        """The network with the engine and precision that its runner took, which may differ from the planned ones.

        Continue with this network: an engine that failed at one depth is not tried again at another.
        """
        if self._runner is None or not self.cut.layer:
            return self.network
        return replace(self.network, engine=self._runner.engine, precision=self._runner.precision)

    def exported(self) -> bytes:
        """Return the prefix as an ONNX file, which is kept beside its features.

        Raises:
            ExportError: it cannot be exported.
        """
        report, preprocessing = self.network.report, self.network.preprocessing
        try:
            directory = self.plain.make()
        except MachineError:  # a read-only cache; an export that it already holds can be used
            directory = self.plain.directory
        return load_or_export_onnx(
            lambda: self.cut.prefix,
            preprocessing,
            directory,
            on_export=lambda: report.note("Export    the frozen layers, to ONNX"),
            on_damage=lambda path: report.warn(f"{path} is damaged (its checksum differs) and will be exported again."),
        )

    @property
    def cacheable(self) -> bool:
        """Whether features are kept on disk: something is frozen, and the cache is on."""
        return self.cut.layer > 0 and self.network.cache.on_disk

    def reporting_to(self, report: Reporter) -> FeatureExtractor:
        """Return the same network and stores with another reporter."""
        changed = replace(self, network=replace(self.network, report=report))
        changed._runner = self._runner
        return changed

    def with_fit(self, fit: str) -> FeatureExtractor:
        """Return the same network with another fit, `crop`, `pad`, or `squash`, of its images. It has its own store."""
        preprocessing = replace(self.network.preprocessing, fit=fit)
        network = replace(self.network, preprocessing=preprocessing)
        changed = self._with_network(network, {"preprocessing": preprocessing.to_json()})
        changed._runner = self._runner  # the network sees inputs of the same shape
        return changed

    def in_fp32(self) -> FeatureExtractor:
        """Return the same network in fp32, in the same engine. It has its own store."""
        network = replace(self.network, precision="fp32")
        changed = self._with_network(network, {"numerics": feature_numerics("fp32", network.engine)})
        changed._export = self.exported  # exported once for both
        return changed

    def _with_network(self, network: LoadedBackbone, ingredients: dict[str, Any]) -> FeatureExtractor:
        store = network.cache.open(self.plain.content | ingredients, self.plain.shape, cached=self.cut.layer > 0)
        return replace(self, network=network, plain=store, augmented=None, augmentation=None)

    def with_views_in_memory(self, augmentation: Augmentation) -> FeatureExtractor:
        """Return the same network with a store in memory for views, which are forgotten with it."""
        content = self.plain.content | {"augmentation": augmentation.to_json(), "seed": self.seed}
        store = FeatureStore(None, content, self.cut.feature_shape, self.network.report)
        changed = replace(self, augmented=store, augmentation=augmentation)
        changed._runner = self.runner  # opened once for all
        return changed

    def decode_options(self, known: FeatureStore | None = None, *, augmented: bool = False) -> DecodeOptions:
        """Return how workers decode images.

        Args:
            known: Images with a feature in this store are hashed but not decoded.
            augmented: Augment views above 0.
        """
        return DecodeOptions(
            preprocessing=self.network.preprocessing,
            known=frozenset() if known is None else known.keys(),
            augmentation=self.augmentation if augmented else None,
            seed=self.seed,
        )

    def extract(self, paths: Sequence[str], *, verify: bool = False) -> Extraction:
        """Make sure that the plain store has the feature of every image.

        Args:
            paths: The images to compute features of.
            verify: Read every file again, even if its file is unchanged.

        Raises:
            MachineError: not enough disk space or memory for them.
        """
        started = time.monotonic()
        missing = find_missing(paths, self.plain, self.network.cache.memo, verify=verify)
        if not missing.todo:
            self.network.report.note(f"Features  {len(paths):,} images, all from the cache")
        return self._complete(missing, started)

    def extract_views(self, paths: Sequence[str], digests: Sequence[bytes], views: Sequence[int]) -> Extraction:
        """Make sure that the stores have some views of images whose digests are known.

        Files whose features are stored are not read.

        Args:
            paths: The images to compute features of.
            digests: SHA-256 of each image's file.
            views: `[0]` for plain features, or views above 0.

        Returns:
            The result for each image; `computed` and `reused` count views.
        """
        started = time.monotonic()
        store = self.plain if 0 in views or self.augmented is None else self.augmented
        todo = [(index, view) for view in views for index, digest in enumerate(digests) if (digest, view) not in store]
        missing = MissingFeatures(
            name="Features" if store is self.plain else "Views",
            store=store,
            paths=paths,
            todo=todo,
            extraction=Extraction(digests=list(digests), reused=len(paths) * len(views) - len(todo)),
        )
        return self._complete(missing, started)

    def _complete(self, missing: MissingFeatures, started: float) -> Extraction:
        cache, store = self.network.cache, missing.store
        compute = self.compute_with or FeatureExtractor.compute
        work = Work(
            prepare=lambda: self.runner,
            announce=lambda images: cache.announce(store, images, self.network.report),
            compute=lambda part: compute(self, part),
        )
        extract_together(missing, work)
        keep_outline(self.network.backbone, self.cut, self.plain)
        missing.extraction.seconds = time.monotonic() - started
        return missing.extraction

    def compute(self, missing: MissingFeatures) -> None:
        """Compute missing features into their store in this process."""
        network = self.network
        batch_size = pick_batch_size(self.batch_size, network.device)
        network.report.detail(f"  {self.workers} decoder processes, {batch_size} images per batch")
        options = self.decode_options(missing.store, augmented=missing.store is self.augmented)
        ahead = AHEAD_BYTES // math.prod(network.preprocessing.shape)
        with ImageLoader(options, workers=self.workers, ahead=ahead, report=network.report) as loader:
            extract(
                missing,
                open_prefix=lambda: functools.partial(map_padded, self.runner, size=batch_size),
                loader=loader,
                image_shape=network.preprocessing.shape,
                batch_size=batch_size,
                memo=network.cache.memo,
                report=network.report,
            )


def freeze_at(
    network: LoadedBackbone,
    freeze: str,
    *,
    workers: int,
    batch_size: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> FeatureExtractor:
    """Cut a network, and open the stores of its prefix's features.

    Args:
        network: The network, with the weights that it has now.
        freeze: `all`, `none`, or the number or name of a layer.
        workers: Number of decoder processes.
        batch_size: Images in one forward pass of the prefix; None picks by device.
        augmentation: Augmentation of views above 0.
        seed: Seed of these views.

    Raises:
        UsageError: the network cannot be cut there.
        ArtifactError: the cache is damaged.
    """
    backbone, preprocessing = network.backbone, network.preprocessing
    cut, weights = cut_and_digest(backbone, freeze)
    content = ingredients(
        backbone=backbone.name,
        weights=weights,
        layer=cut.layer,
        layer_name=cut.name,
        preprocessing=preprocessing,
        numerics=feature_numerics(network.precision, network.engine),
    )
    cached = cut.layer > 0  # the identity's features, the images themselves, are never cached
    plain = network.cache.open(content, cut.feature_shape, cached=cached)
    augmented = None
    if augmentation is not None and augmentation.enabled:
        views = content | {"augmentation": augmentation.to_json(), "seed": seed}
        augmented = network.cache.open(views, cut.feature_shape, cached=cached)
        if min(preprocessing.height, preprocessing.width) > MAX_SHORT_SIDE:
            network.report.warn(
                f"augmented views are made from images whose short side has at most {MAX_SHORT_SIDE} pixels; this "
                f"network sees {preprocessing.width}, so views are less sharp than evaluation images."
            )
    return FeatureExtractor(
        network=network,
        cut=cut,
        plain=plain,
        augmented=augmented,
        augmentation=augmentation,
        seed=seed,
        workers=workers,
        batch_size=batch_size,
    )


def describe_cut(cut: Cut) -> str:
    """Describe where a network is cut."""
    if cut.layer == cut.of:
        return f"frozen up to the head ({cut.of} layers)"
    if cut.layer == 0:
        return f"nothing frozen ({cut.of} layers)"
    return f"frozen up to layer {cut.layer} of {cut.of} ({cut.name})"

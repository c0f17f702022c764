"""cache-features on a cluster: workers compute features, and the driver is the only writer of the cache.

N is the number of features in an answer; a feature has the shape of the store's.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from tlcli.backbones.backbone import Backbone
from tlcli.cluster.ray_cluster import Cluster, ClusterRequest, ray_cluster
from tlcli.cluster.streaming import stream
from tlcli.engines.choice import choose_engine, pick_batch_size
from tlcli.engines.runner import map_padded
from tlcli.errors import ArtifactError
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction, MissingFeatures, extract
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.features.fingerprint import differences, fingerprint
from tlcli.features.memo import DigestsByPath, Memo
from tlcli.features.store import FeatureStore
from tlcli.images.intensity import IntensityRange
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.processes import cores
from tlcli.progress import Silent
from tlcli.settings.augmentation import Augmentation

PART_BYTES = 64 * 2**20
"""Maximum size of the features in an answer, which passes through the memory of worker, Ray and driver."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """How workers load the same network as the driver."""

    load: Callable[[], Backbone]
    """Loads the backbone."""
    fit: str
    intensity: IntensityRange | None
    freeze: str
    augmentation: Augmentation | None
    seed: int
    precision: str
    engine: str
    images: int
    """Number of images in DATA, which decides the engine."""
    batch_size: int | None
    workers: int | None
    """Decoder processes of each worker; None starts one per core of the worker."""


@dataclass(frozen=True, kw_only=True)
class FeatureTask:
    """Images whose features a worker is to compute."""

    paths: list[str]
    views: list[int]
    digests: list[bytes | None]
    """Digest of each image; None if unknown. Always known for views above 0."""


@dataclass(frozen=True, kw_only=True)
class FeatureAnswer:
    """The features of a task, and the result for each of its images."""

    extraction: Extraction
    """The result for each image, by index in the task."""
    keys: list[tuple[bytes, int]]
    """Digest and view of each feature."""
    features: npt.NDArray[Any]
    """[N, *feature_shape], as they are stored."""
    remembered: DigestsByPath


class FeatureWorker:
    """Computes features, with a network and decoder processes that are kept between tasks.

    Args:
        spec: How to load the network.
        device: The device to compute on.
        ingredients: The fingerprint ingredients of the driver's store.
        options: How to decode images; they include the keys that the driver's cache already has.

    Raises:
        ArtifactError: the network on the worker's machine differs from the driver's.
    """

    def __init__(self, spec: WorkerSpec, device: str, ingredients: dict[str, Any], options: DecodeOptions) -> None:
        backbone = spec.load()
        network = place_backbone(
            backbone,
            choose_engine(device, spec.precision, spec.engine, images=spec.images, frozen=spec.freeze != "none"),
            fit=spec.fit,
            intensity=spec.intensity,
            cache=FeatureCache(None, Silent()),
            report=Silent(),
        )
        workers = spec.workers or cores()
        extractor = freeze_at(network, spec.freeze, workers=workers, augmentation=spec.augmentation, seed=spec.seed)
        if fingerprint(ingredients) not in network.cache.stores:
            names = ", ".join(differences(ingredients, extractor.plain.content))
            raise ArtifactError(f"the network on {platform.node()} differs from the driver's in {names}.")
        self._extractor = extractor
        self._ingredients = ingredients
        self._batch_size = pick_batch_size(spec.batch_size, network.device)
        self._loader = ImageLoader(options, workers=workers)

    def __call__(self, task: FeatureTask) -> FeatureAnswer:
        """Compute the features of a task."""
        store = FeatureStore(None, self._ingredients, self._extractor.plain.shape)
        memo = Memo(None, Silent())
        missing = MissingFeatures(
            name="Features",
            store=store,
            paths=task.paths,
            todo=list(enumerate(task.views)),
            extraction=Extraction(digests=list(task.digests)),
        )
        extract(
            missing,
            open_prefix=lambda: functools.partial(map_padded, self._extractor.runner, size=self._batch_size),
            loader=self._loader,
            image_shape=self._extractor.network.preprocessing.shape,
            batch_size=self._batch_size,
            memo=memo,
            report=Silent(),
        )
        keys = list(store.keys())
        features = store.read(store.places(keys)).astype(store.dtype)
        return FeatureAnswer(extraction=missing.extraction, keys=keys, features=features, remembered=memo.new)


class ClusterExtractor:
    """Computes missing features on a cluster: a `ComputeFeatures`.

    Args:
        request: The cluster to join.
        part_size: Maximum number of images that a worker gets at a time.
        spec: How workers load the network.
        stack: The cluster is joined when the first features are computed, and left when this is closed.
    """

    def __init__(self, request: ClusterRequest, part_size: int, spec: WorkerSpec, stack: contextlib.ExitStack) -> None:
        self._request = request
        self._part_size = part_size
        self._spec = spec
        self._stack = stack
        self._cluster: Cluster | None = None

    def __call__(self, extractor: FeatureExtractor, missing: MissingFeatures) -> None:
        """Compute missing features into their store, and complete their extraction."""
        network, store, todo = extractor.network, missing.store, missing.todo
        if self._cluster is None:
            self._cluster = self._stack.enter_context(ray_cluster(self._request, network.report))
        spec = replace(self._spec, precision=network.precision)
        options = extractor.decode_options(store, augmented=store is extractor.augmented)
        worker = functools.partial(FeatureWorker, spec, self._cluster.device, store.content, options)
        size = max(1, min(self._part_size, PART_BYTES // store.row_bytes()))
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        tasks = [
            FeatureTask(
                paths=[missing.paths[index] for index, _ in part],
                views=[view for _, view in part],
                digests=[missing.extraction.digests[index] for index, _ in part],
            )
            for part in parts
        ]
        memo = network.cache.memo
        with contextlib.ExitStack() as writing, network.report.task(missing.name, len(todo)) as advance:
            try:
                kept: set[tuple[bytes, int]] = set()
                for number, answer in stream(self._cluster, worker, tasks):
                    if not store.locked:
                        writing.enter_context(store.writing())
                    _store_features(answer, store, kept, missing.extraction)
                    _merge_extraction(answer, parts[number], missing.extraction)
                    memo.take(answer.remembered)
                    advance(len(parts[number]))
            finally:
                memo.save()


def _store_features(
    answer: FeatureAnswer, store: FeatureStore, kept: set[tuple[bytes, int]], extraction: Extraction
) -> None:
    """Store an answer's features, without copies of features that are in the store or in `kept`."""
    new = 0
    for key, feature in zip(answer.keys, answer.features, strict=True):
        if key not in kept and key not in store:
            store.add(*key, feature)
            kept.add(key)
            new += 1
    extraction.computed += new
    extraction.reused += answer.extraction.reused + len(answer.keys) - new


def _merge_extraction(answer: FeatureAnswer, part: Sequence[tuple[int, int]], extraction: Extraction) -> None:
    """Record the results of a part's images and views."""
    for place, (index, view) in enumerate(part):
        if not view:
            extraction.digests[index] = answer.extraction.digests[place]
        if place in answer.extraction.failures:
            extraction.failures[index] = answer.extraction.failures[place]

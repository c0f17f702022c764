"""cache-features on a cluster: workers compute features, and the driver, the cache's one writer, keeps them.

N is the number of features in an answer; a feature has the shape of the store's.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from tlcli.cluster.connection import Cluster, ray_cluster
from tlcli.cluster.streaming import stream
from tlcli.engines.choice import pick_batch_size
from tlcli.engines.runner import map_padded
from tlcli.errors import ArtifactError
from tlcli.features.extract import Extraction, extract
from tlcli.features.fingerprint import differences, fingerprint
from tlcli.features.frozen import Frozen, freeze_at
from tlcli.features.memo import Known, Memo
from tlcli.features.network import open_network
from tlcli.features.store import FeatureStore
from tlcli.images.intensity import IntensityRange
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter, Silent
from tlcli.settings import CacheSettings, ClusterSettings, ComputeSettings, NetworkSettings
from tlcli.settings.augmentation import Augmentation

PART_BYTES = 64 * 2**20
"""Of features in an answer, at most, which passes through the memory of worker, Ray and driver."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """From what workers make the driver's network again."""

    network: NetworkSettings
    compute: ComputeSettings
    classes: int
    images: int
    """All of DATA, by which the engine is picked."""
    intensity: IntensityRange | None
    augmentation: Augmentation | None


@dataclass(frozen=True, kw_only=True)
class FeatureTask:
    """Images whose features are wanted."""

    paths: list[str]
    views: list[int]
    digests: list[bytes | None]
    """As far as they are known; for views above 0 they are."""


@dataclass(frozen=True, kw_only=True)
class FeatureAnswer:
    """What became of them."""

    extraction: Extraction
    """By their index in the task."""
    keys: list[tuple[bytes, int]]
    """Digest and view of each feature."""
    features: npt.NDArray[Any]
    """[N, *feature_shape], as they are stored."""
    remembered: Known


class FeatureWorker:
    """Computes features, with a network and decoding processes that stay.

    Args:
        recipe: Of the network.
        content: The ingredients of the driver's store.
        options: How decoder processes handle images; `known` lists what the driver's cache already has.

    Raises:
        ArtifactError: on the worker's machine the network is another one.
    """

    def __init__(self, recipe: WorkerSpec, content: dict[str, Any], options: DecodeOptions) -> None:
        network = open_network(
            recipe.network,
            recipe.compute,
            CacheSettings(enabled=False),
            classes=recipe.classes,
            images=recipe.images,
            report=Silent(),
            intensity=recipe.intensity,
        )
        seed, augmentation = recipe.network.seed, recipe.augmentation
        frozen = freeze_at(network, recipe.network.freeze, Silent(), augmentation=augmentation, seed=seed)
        if fingerprint(content) not in network.stores:
            others = ", ".join(differences(content, frozen.plain.content))
            raise ArtifactError(f"the network on {platform.node()} is another one than here: it differs in {others}.")
        self._frozen = frozen
        self._content = content
        self._batch_size = pick_batch_size(recipe.compute.batch_size, network.device)
        self._loader = ImageLoader(options, workers=recipe.compute.worker_count())

    def __call__(self, task: FeatureTask) -> FeatureAnswer:
        """Compute a task's features."""
        store = FeatureStore(None, self._content, self._frozen.plain.shape)
        memo = Memo(None, Silent())
        extraction = Extraction(digests=list(task.digests))
        extract(
            task.paths,
            list(enumerate(task.views)),
            extraction,
            prefix=lambda: functools.partial(map_padded, self._frozen.runner, size=self._batch_size),
            loader=self._loader,
            preprocessing=self._frozen.network.preprocessing,
            store=store,
            memo=memo,
            batch_size=self._batch_size,
            report=Silent(),
        )
        keys = list(store.keys())
        features = store.read(store.places(keys)).astype(store.dtype)
        return FeatureAnswer(extraction=extraction, keys=keys, features=features, remembered=memo.new)


class ClusterExtractor:
    """Computes features on a cluster, as `features.frozen.extract_here` does in this process.

    Args:
        settings: Which cluster.
        recipe: From what workers make the network again.
        stack: The cluster is joined when the first features are wanted, and left with this.
    """

    def __init__(self, settings: ClusterSettings, recipe: WorkerSpec, stack: contextlib.ExitStack) -> None:
        self._settings = settings
        self._recipe = recipe
        self._stack = stack
        self._cluster: Cluster | None = None

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
        if self._cluster is None:
            self._cluster = self._stack.enter_context(ray_cluster(self._settings, compute.device, report))
        compute = replace(compute, device=self._cluster.device, precision=frozen.network.precision)
        options = frozen.decode_options(store, augmented=store is frozen.augmented)
        worker = functools.partial(FeatureWorker, replace(self._recipe, compute=compute), store.content, options)
        size = max(1, min(self._settings.part_size, PART_BYTES // store.row_bytes()))
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        tasks = [
            FeatureTask(
                paths=[paths[index] for index, _ in part],
                views=[view for _, view in part],
                digests=[extraction.digests[index] for index, _ in part],
            )
            for part in parts
        ]
        memo = frozen.network.memo
        with contextlib.ExitStack() as writing, report.task(name, len(todo)) as advance:
            try:
                kept: set[tuple[bytes, int]] = set()
                for number, answer in stream(self._cluster, worker, tasks):
                    if not store.locked:
                        writing.enter_context(store.writing())
                    _keep(answer, store, kept, extraction)
                    _tell(answer, parts[number], extraction)
                    memo.take(answer.remembered)
                    advance(len(parts[number]))
            finally:
                memo.save()


def _keep(answer: FeatureAnswer, store: FeatureStore, kept: set[tuple[bytes, int]], extraction: Extraction) -> None:
    """Store an answer's features, but for copies of what is there or `kept` by now."""
    new = 0
    for key, feature in zip(answer.keys, answer.features, strict=True):
        if key not in kept and key not in store:
            store.add(*key, feature)
            kept.add(key)
            new += 1
    extraction.computed += new
    extraction.reused += answer.extraction.reused + len(answer.keys) - new


def _tell(answer: FeatureAnswer, part: Sequence[tuple[int, int]], extraction: Extraction) -> None:
    """Enter what became of a part's images and views."""
    for place, (index, view) in enumerate(part):
        if not view:
            extraction.digests[index] = answer.extraction.digests[place]
        if place in answer.extraction.failures:
            extraction.failures[index] = answer.extraction.failures[place]

"""`tlcli cache-features`: compute the features of the frozen layers once, and keep them on disk."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tlcli.backbones.backbone import Backbone
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset, describe_failures
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import LoadedBackbone, place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import ComputeFeatures, FeatureExtractor, describe_cut, freeze_at
from tlcli.features.file_digests import DigestReader
from tlcli.features.listing import list_caches
from tlcli.features.store import FeatureStore
from tlcli.inference.starting_network import load_starting_network, open_starting_run
from tlcli.progress import Reporter, Silent
from tlcli.settings import CacheFeaturesSettings, ClusterSettings
from tlcli.storage.files import check_new_file, portable_name
from tlcli.storage.folders import exclusive_write
from tlcli.storage.outputs import Target, check_writable, published_if

EXPORT_ROWS = 4096
"""Rows exported at a time, so that memory stays flat."""


def cache_features(settings: CacheFeaturesSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Compute the features of DATA that the cache lacks.

    Returns:
        The object of `--json`: cache, images, computed, reused, failed, feature_shape, dtype, bytes, seconds,
        images_per_second; and `failures`.

    Raises:
        UsageError: there is no such backbone or layer, or the export already exists.
        DataError: DATA is missing or unusable.
        ArtifactError: the weights or the cache are damaged.
        MachineError: the disk is full, permission is denied, there is no such device, or the weights would have to be
            downloaded.
    """
    report = report or Silent()
    with published_if(settings.export, Target(option="--export"), report, overwrite=settings.overwrite) as export:
        return _cache_features(settings, export, report)


def _cache_features(settings: CacheFeaturesSettings, export: Path | None, report: Reporter) -> dict[str, Any]:
    if export is not None:
        check_new_file("--export", export, replace=settings.overwrite, inputs=[settings.data])
        check_writable(export)
    workers = settings.compute.worker_count()
    corrections = DigestReader(settings.cache, workers=workers, report=report).corrections(settings.corrections)
    dataset = open_dataset(settings.data, filters=settings.filters, columns=settings.columns, corrections=corrections)
    describe_dataset(dataset, report)
    images = len(dataset.samples)
    run, wanted = open_starting_run(settings.network)
    settings = replace(settings, network=wanted)
    intensity = resolve_intensity(
        settings.network.intensity,
        dataset,
        fraction=None,
        seed=settings.network.seed,
        workers=workers,
        report=report,
    )
    cache = FeatureCache(settings.cache.root(), report, shared_writers=settings.shard is not None)
    compute = settings.compute
    frozen = settings.network.freeze != "none"
    choice = choose_engine(compute.device, compute.precision, compute.engine, images=images, frozen=frozen)
    # A head of the right size, since some networks come without one and cannot be cut before it.
    load = functools.partial(load_starting_network, settings.network, run, classes=len(dataset.classes))
    network = place_backbone(
        load(cache=cache), choice, fit=settings.network.input_fit, intensity=intensity, cache=cache, report=report
    )
    if settings.shard is not None:  # only now: the number of all images decides the engine, and so the last bits
        chosen = settings.shard.range(images)
        report.note(f"Shard     {settings.shard}: {len(chosen):,} of {images:,} images")
        dataset = replace(dataset, samples=dataset.samples[chosen.start : chosen.stop])
    extractor = freeze_at(
        network,
        settings.network.freeze,
        workers=workers,
        batch_size=settings.compute.batch_size,
        augmentation=settings.augmentation,
        seed=settings.network.seed,
    )
    report.note(network.describe(describe_cut(extractor.cut)))
    with contextlib.ExitStack() as stack:
        if settings.cluster is not None:
            extractor.compute_with = _on_cluster(settings, settings.cluster, load, network, images, stack)
        extraction = extractor.extract([sample.path for sample in dataset.samples], verify=settings.cache.verify)
        describe_failures(dataset, extraction.failures, report)
        if settings.views:
            _compute_views(settings.views, dataset, extraction, extractor)
    if export is not None:
        _export(export, dataset, extraction, extractor)
    return _result(settings, dataset, extraction, extractor)


def _on_cluster(
    settings: CacheFeaturesSettings,
    cluster: ClusterSettings,
    load: Callable[[], Backbone],
    network: LoadedBackbone,
    images: int,
    stack: contextlib.ExitStack,
) -> ComputeFeatures:
    """Compute features on a cluster, which is left when `stack` is closed."""
    from tlcli.cluster.features import ClusterExtractor, WorkerSpec
    from tlcli.cluster.ray_cluster import ClusterRequest

    spec = WorkerSpec(
        load=load,
        fit=settings.network.input_fit,
        intensity=network.preprocessing.intensity,
        freeze=settings.network.freeze,
        augmentation=settings.augmentation,
        seed=settings.network.seed,
        precision=settings.compute.precision,
        engine=settings.compute.engine,
        images=images,
        batch_size=settings.compute.batch_size,
        workers=settings.compute.workers,
    )
    request = ClusterRequest(address=cluster.address, cores=cluster.cores, device=settings.compute.device)
    return ClusterExtractor(request, cluster.part_size, spec, stack)


def _result(
    settings: CacheFeaturesSettings, dataset: Dataset, extraction: Extraction, extractor: FeatureExtractor
) -> dict[str, Any]:
    root, plain, augmented = settings.cache.root(), extractor.plain, extractor.augmented
    directory = root / plain.fingerprint
    views = None if augmented is None else root / augmented.fingerprint
    size = sum(cache.bytes for cache in list_caches(root) if cache.directory in {directory, views})
    return {
        "cache": str(directory),
        "views_cache": None if views is None else str(views),
        "shard": None if settings.shard is None else str(settings.shard),
        "images": len(dataset.samples),
        "corrections": dataset.corrections.to_json() if dataset.corrections else None,
        "views": settings.views or 0,
        "computed": extraction.computed,
        "reused": extraction.reused,
        "failed": len(extraction.failures),
        "feature_shape": list(plain.shape),
        "dtype": plain.dtype.name,
        "bytes": size,
        "seconds": round(extraction.seconds, 3),
        "images_per_second": round((extraction.computed + extraction.reused) / extraction.seconds, 1),
        "failures": [
            {"path": portable_name(dataset.samples[index].path), "error": reason}
            for index, reason in sorted(extraction.failures.items())
        ],
    }


def _compute_views(views: int, dataset: Dataset, extraction: Extraction, extractor: FeatureExtractor) -> None:
    """Compute views 1 to `views` of the images that may be trained on, and add them to `extraction`."""
    train = [
        index
        for index, sample in enumerate(dataset.samples)
        if sample.split in {None, "train"} and index not in extraction.failures
    ]
    found = extractor.extract_views(
        [dataset.samples[index].path for index in train],
        [extraction.digests[index] or b"" for index in train],
        range(1, views + 1),
    )
    extraction.computed += found.computed
    extraction.reused += found.reused
    extraction.seconds += found.seconds
    extraction.failures |= {train[index]: reason for index, reason in found.failures.items()}


def _export(out: Path, dataset: Dataset, extraction: Extraction, extractor: FeatureExtractor) -> None:
    """Write path, label, split, digest and feature of each image to a Parquet file, in the order of DATA.

    Features are float16 if the cache holds nothing else, so some shards' exports of maps may be float32.
    """
    store = extractor.plain
    value = pa.float32() if store.dtype.itemsize == 4 else pa.float16()
    schema = pa.schema(
        {
            "path": pa.string(),
            "label": pa.string(),
            "split": pa.string(),
            "digest": pa.string(),
            "feature": pa.list_(value, int(store.row_values())),
        }
    )
    good = [index for index in range(len(dataset.samples)) if index not in extraction.failures]
    with exclusive_write(out, extractor.network.report) as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(good), EXPORT_ROWS):
            writer.write_table(_rows(good[start : start + EXPORT_ROWS], dataset, extraction, store, schema))


def _rows(
    indices: Sequence[int], dataset: Dataset, extraction: Extraction, store: FeatureStore, schema: pa.Schema
) -> pa.Table:
    samples = [dataset.samples[index] for index in indices]
    digests = [extraction.digests[index] or b"" for index in indices]
    features = pa.array(store.gather(digests).reshape(-1), schema.field("feature").type.value_type)
    return pa.table(
        {
            "path": [portable_name(sample.path) for sample in samples],
            "label": [dataset.classes[sample.label] for sample in samples],
            "split": pa.array([sample.split for sample in samples], pa.string()),
            "digest": [digest.hex() for digest in digests],
            "feature": pa.FixedSizeListArray.from_arrays(features, store.row_values()),
        },
        schema=schema,
    )

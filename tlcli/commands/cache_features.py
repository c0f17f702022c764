"""cache-features: what the frozen part of a network gives for each image, computed once and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset, describe_failures
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.features.extract import Extraction
from tlcli.features.frozen import Extractor, Frozen, describe_cut, freeze_at, known_features, plain_features
from tlcli.features.listing import list_caches
from tlcli.features.network import describe_network, open_network
from tlcli.progress import Reporter, Silent
from tlcli.settings import CacheFeaturesSettings
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
        UsageError: no such backbone or layer, or the export exists already.
        DataError: DATA is missing or unusable.
        ArtifactError: weights or cache are broken.
        MachineError: no room, no permission, no such device, or weights that would need a network.
    """
    report = report or Silent()
    with published_if(settings.export, Target(option="--export"), report, overwrite=settings.overwrite) as export:
        return _cache_features(settings, export, report)


def _cache_features(settings: CacheFeaturesSettings, export: Path | None, report: Reporter) -> dict[str, Any]:
    if export is not None:
        check_new_file("--export", export, replace=settings.overwrite, inputs=[settings.data])
        check_writable(export)
    dataset = open_dataset(settings.data)
    describe_dataset(dataset, report)
    # A head of the right size, since some networks come without one and can't be cut before it.
    classes = len(dataset.classes)
    images = len(dataset.samples)
    freeze, seed = settings.network.freeze, settings.network.seed
    workers = settings.compute.worker_count()
    intensity = resolve_intensity(
        settings.network.intensity, dataset, fraction=None, seed=seed, workers=workers, report=report
    )
    network = open_network(
        settings.network,
        settings.compute,
        settings.cache,
        classes=classes,
        images=images,
        report=report,
        intensity=intensity,
        others_write=settings.shard is not None,
    )
    if settings.shard is not None:  # only now: all images together decide what computes, and so the last bits
        chosen = settings.shard.range(images)
        report.note(f"Shard     {settings.shard}: {len(chosen):,} of {images:,} images")
        dataset = replace(dataset, samples=dataset.samples[chosen.start : chosen.stop])
    frozen = freeze_at(network, freeze, report, augmentation=settings.augmentation, seed=seed)
    report.note(describe_network(network, describe_cut(frozen.cut)))
    paths = [sample.path for sample in dataset.samples]
    with contextlib.ExitStack() as stack:
        extractor = None
        if settings.cluster is not None:
            from tlcli.cluster.features import ClusterExtractor, WorkerSpec

            recipe = WorkerSpec(
                network=settings.network,
                compute=settings.compute,
                classes=classes,
                images=images,
                intensity=intensity,
                augmentation=settings.augmentation,
            )
            extractor = ClusterExtractor(settings.cluster, recipe, stack)
        extraction, seconds = plain_features(
            frozen, paths, settings.compute, verify=settings.cache.verify, report=report, extractor=extractor
        )
        describe_failures(dataset, extraction.failures, report)
        if settings.views:
            seconds += _compute_views(settings.views, dataset, extraction, frozen, settings, report, extractor)
    if export is not None:
        _export(export, dataset, extraction, frozen, report)
    root = settings.cache.root()
    directory = root / frozen.plain.fingerprint
    views = None if frozen.augmented is None else root / frozen.augmented.fingerprint
    size = sum(cache.bytes for cache in list_caches(root) if cache.directory in {directory, views})
    return {
        "cache": str(directory),
        "views_cache": None if views is None else str(views),
        "shard": None if settings.shard is None else str(settings.shard),
        "images": len(paths),
        "views": settings.views or 0,
        "computed": extraction.computed,
        "reused": extraction.reused,
        "failed": len(extraction.failures),
        "feature_shape": list(frozen.plain.shape),
        "dtype": frozen.plain.dtype.name,
        "bytes": size,
        "seconds": round(seconds, 3),
        "images_per_second": round((extraction.computed + extraction.reused) / seconds, 1),
        "failures": [
            {"path": portable_name(paths[index]), "error": reason}
            for index, reason in sorted(extraction.failures.items())
        ],
    }


def _compute_views(
    views: int,
    dataset: Dataset,
    extraction: Extraction,
    frozen: Frozen,
    settings: CacheFeaturesSettings,
    report: Reporter,
    extractor: Extractor | None,
) -> float:
    """Views 1 to `views` of the images that may be trained on, entered into `extraction`; the seconds it took."""
    train = [
        index
        for index, sample in enumerate(dataset.samples)
        if sample.split in {None, "train"} and index not in extraction.failures
    ]
    assert frozen.augmented is not None  # settings see to it
    found, seconds = known_features(
        frozen,
        frozen.augmented,
        [dataset.samples[index].path for index in train],
        [extraction.digests[index] or b"" for index in train],
        range(1, views + 1),
        settings.compute,
        report=report,
        extractor=extractor,
    )
    extraction.computed += found.computed
    extraction.reused += found.reused
    extraction.failures |= {train[index]: reason for index, reason in found.failures.items()}
    return seconds


def _export(out: Path, dataset: Dataset, extraction: Extraction, frozen: Frozen, report: Reporter) -> None:
    """Write path, label, split, digest and feature of each image to a Parquet file, in the order of DATA.

    Features are float16 where the cache holds nothing but that; so of shards' exports of maps, some may be float32.
    """
    value = pa.float32() if frozen.plain.dtype.itemsize == 4 else pa.float16()
    schema = pa.schema(
        {
            "path": pa.string(),
            "label": pa.string(),
            "split": pa.string(),
            "digest": pa.string(),
            "feature": pa.list_(value, int(frozen.plain.row_values())),
        }
    )
    good = [index for index in range(len(dataset.samples)) if index not in extraction.failures]
    with exclusive_write(out, report) as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(good), EXPORT_ROWS):
            writer.write_table(_rows(good[start : start + EXPORT_ROWS], dataset, extraction, frozen, schema))


def _rows(
    indices: Sequence[int], dataset: Dataset, extraction: Extraction, frozen: Frozen, schema: pa.Schema
) -> pa.Table:
    samples = [dataset.samples[index] for index in indices]
    digests = [extraction.digests[index] or b"" for index in indices]
    features = pa.array(frozen.plain.gather(digests).reshape(-1), schema.field("feature").type.value_type)
    return pa.table(
        {
            "path": [portable_name(sample.path) for sample in samples],
            "label": [dataset.classes[sample.label] for sample in samples],
            "split": pa.array([sample.split for sample in samples], pa.string()),
            "digest": [digest.hex() for digest in digests],
            "feature": pa.FixedSizeListArray.from_arrays(features, frozen.plain.row_values()),
        },
        schema=schema,
    )

"""cache-features: what the frozen part of a network gives for each picture, computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tlcli.features.extract import Extraction
from tlcli.features.frozen import Frozen, features_of, open_frozen
from tlcli.features.store import list_caches
from tlcli.files import atomic_write, check_new_file, portable_name
from tlcli.images.dataset import Dataset, open_dataset
from tlcli.images.describe import describe_dataset, describe_failures
from tlcli.progress import Reporter, Silent
from tlcli.settings import CacheFeaturesSettings

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
    export = settings.export
    if export is not None:
        check_new_file("--export", export, replace=settings.overwrite)
    dataset = open_dataset(settings.data)
    describe_dataset(dataset, report)
    # A head of the right size, since some networks come without one and can't be cut before it.
    classes = len(dataset.classes)
    frozen = open_frozen(settings.network, settings.compute, settings.cache, classes=classes, report=report)
    paths = [sample.path for sample in dataset.samples]
    extraction, seconds = features_of(frozen, paths, settings.compute, verify=settings.cache.verify, report=report)
    describe_failures(dataset, extraction.failures, report)
    if export is not None:
        _export(export, dataset, extraction, frozen)
    root = settings.cache.root()
    directory = root / frozen.store.fingerprint
    size = next((cache.bytes for cache in list_caches(root) if cache.directory == directory), 0)
    return {
        "cache": str(directory),
        "images": len(paths),
        "computed": extraction.computed,
        "reused": extraction.reused,
        "failed": len(extraction.failures),
        "feature_shape": list(frozen.store.shape),
        "dtype": frozen.store.dtype.name,
        "bytes": size,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(paths) / seconds, 1),
        "failures": [
            {"path": portable_name(paths[index]), "error": reason}
            for index, reason in sorted(extraction.failures.items())
        ],
    }


def _export(out: Path, dataset: Dataset, extraction: Extraction, frozen: Frozen) -> None:
    """Write path, label, split, digest and feature of each picture to a Parquet file, in the order of DATA."""
    value = pa.float32() if frozen.store.dtype.itemsize == 4 else pa.float16()
    schema = pa.schema(
        {
            "path": pa.string(),
            "label": pa.string(),
            "split": pa.string(),
            "digest": pa.string(),
            "feature": pa.list_(value, int(frozen.store.row_values())),
        }
    )
    good = [index for index in range(len(dataset.samples)) if index not in extraction.failures]
    with atomic_write(out) as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(good), EXPORT_ROWS):
            writer.write_table(_rows(good[start : start + EXPORT_ROWS], dataset, extraction, frozen, schema))


def _rows(
    indices: Sequence[int], dataset: Dataset, extraction: Extraction, frozen: Frozen, schema: pa.Schema
) -> pa.Table:
    samples = [dataset.samples[index] for index in indices]
    digests = [extraction.digests[index] or b"" for index in indices]
    features = pa.array(frozen.store.gather(digests).reshape(-1), schema.field("feature").type.value_type)
    return pa.table(
        {
            "path": [portable_name(sample.path) for sample in samples],
            "label": [dataset.classes[sample.label] for sample in samples],
            "split": pa.array([sample.split for sample in samples], pa.string()),
            "digest": [digest.hex() for digest in digests],
            "feature": pa.FixedSizeListArray.from_arrays(features, frozen.store.row_values()),
        },
        schema=schema,
    )

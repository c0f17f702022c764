"""The content of `run.json` for a trained classifier."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import tlcli
from tlcli.datasets.dataset import Dataset
from tlcli.runs.provenance import data_fingerprint, versions
from tlcli.settings import SPLITS
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute
from tlcli.training.classifier import Classifier


def run_info(settings: dict[str, Any], dataset: Dataset, classifier: Classifier, *, processes: int) -> dict[str, Any]:
    """Return the content of `run.json`, without total seconds, format and checksums.

    Args:
        settings: From `settings_to_json`.
        dataset: DATA, including images that failed.
        classifier: What was trained on them.
        processes: How many processes trained it.
    """
    return (
        {
            "tlcli": tlcli.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings,
        }
        | _network_info(classifier, processes)
        | {
            "training": classifier.training,
            "temperature": classifier.calibration.temperature,
            "log_prior": None
            if classifier.calibration.log_prior is None
            else classifier.calibration.log_prior.tolist(),
        }
        | _image_info(dataset, classifier)
        | {
            "validation": classifier.validation.metrics,
            "test": classifier.test.metrics if classifier.test else None,
            "learning_curve": asdict(classifier.curve),
            "novelty": classifier.novelty.novelty.sizes() if classifier.novelty else None,
            "versions": versions(),
        }
    )


def _network_info(classifier: Classifier, processes: int) -> dict[str, Any]:
    extractor = classifier.extractor
    network, cut = extractor.network_as_run, extractor.cut
    head = [tensor for tensor in network.backbone.head() if tensor is not None]
    return {
        "backbone": network.backbone.name,
        "weights": network.backbone.origin,
        "freeze": {"layer": cut.layer, "name": cut.name, "of": cut.of},
        "classes": list(classifier.images.dataset.classes),
        "preprocessing": network.preprocessing.to_json(),
        "device": str(network.device),
        "precision": network.precision,
        "engine": network.engine,
        "precision_check": asdict(classifier.precision_check) if classifier.precision_check else None,
        "processes": processes,
        "cache": extractor.plain.fingerprint,
        "feature_shape": list(cut.feature_shape),
        "head": {"parameters": sum(tensor.numel() for tensor in head), "l2": classifier.l2},
        "refitted": classifier.refitted,
    }


def _image_info(dataset: Dataset, classifier: Classifier) -> dict[str, Any]:
    images = classifier.images
    extraction = images.extraction
    failed = [(dataset.samples[index].path, reason) for index, reason in sorted(extraction.failures.items())]
    failed += images.lost.items()
    return {
        "images": {
            **{split: len(images.readable(split)) for split in SPLITS},
            "skipped": sum(dataset.skipped.values()),
            "failed": len(failed),
            "computed": extraction.computed,
            "reused": extraction.reused,
        },
        "corrections": dataset.corrections.to_json() if dataset.corrections else None,
        "data": {
            "root": portable_name(absolute(dataset.root)),
            "fingerprint": data_fingerprint(extraction.digests),
            "skipped": dataset.skipped,
            "notes": list(dataset.notes),
            "failed": [{"path": portable_name(path), "error": reason} for path, reason in failed],
            "duplicates": images.duplicates.to_json(),
        },
    }

"""Whether training has forgotten what its parent knew: accuracy on the parent's validation images, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlcli.datasets.dataset import Sample
from tlcli.datasets.duplicates import Duplicates
from tlcli.datasets.splits import SplitDataset
from tlcli.errors import ArtifactError, DataError
from tlcli.features.extraction import Extraction
from tlcli.features.file_digests import DigestReader
from tlcli.progress import Reporter
from tlcli.runs.stored_predictions import StoredPrediction, stored_predictions
from tlcli.settings import FinetuneSettings
from tlcli.storage.files import portable_name
from tlcli.training.classifier import Classifier
from tlcli.training.parent import Parent
from tlcli.training.tail.fit import predict_logits_of_rows
from tlcli.training.tail.recipe import BATCH_SIZE
from tlcli.training.tail.sources import TailData
from tlcli.training.usable_images import UsableImages


def measure_forgetting(
    parent: Parent, classifier: Classifier, settings: FinetuneSettings, report: Reporter
) -> dict[str, Any] | None:
    """Compare the parent with the new classifier on the parent's validation images, of the classes that remain.

    Both are evaluated on images that they were not trained on: validation images that are now in train are left out,
    and so are those that are no longer at their path.

    Args:
        parent: The run that training continued from.
        classifier: What was trained.
        settings: Where the cache is, and the number of decoder processes.
        report: Receives the progress of reading images.

    Returns:
        For `run.json`: `run`, `images`, accuracy `before` and `after` (None without images), and the number of images
        left out: `trained_on`, `missing`, and `relabeled` (DATA has another class for them). None, with a warning, if
        the parent or its images changed during training.
    """
    try:
        return _measure(parent, classifier, settings, report)
    except (ArtifactError, DataError) as error:
        report.warn(f"The accuracy on the validation images of {parent.path} was not measured: {error.message}")
        return None


def _measure(parent: Parent, classifier: Classifier, settings: FinetuneSettings, report: Reporter) -> dict[str, Any]:
    workers, classes = settings.compute.worker_count(), classifier.images.dataset.classes
    names = {before: name for before, name in zip(parent.before, classes, strict=True) if before is not None}
    wanted = {
        digest: row
        for digest, row in stored_predictions(parent.run, workers=workers, report=report).items()
        if row.split == "validation" and row.label in names
    }
    found = {
        row["digest"]: row["predicted"]
        for part in (classifier.validation, classifier.test)
        for row in (part.rows if part else [])
    }
    splits = classifier.images.splits
    labels = {digest: classes[sample.label] for digest, sample in zip(splits.digests, splits.samples, strict=True)}
    relabeled = {digest for digest, row in wanted.items() if labels.get(digest, names[row.label]) != names[row.label]}
    wanted = {digest: row for digest, row in wanted.items() if digest not in relabeled}
    trained = labels.keys() - found.keys()
    others = {digest: row for digest, row in wanted.items() if digest not in found and digest not in trained}
    reader = DigestReader(settings.cache, workers=workers, report=report)
    digests = reader.read([row.path for row in others.values()], "Parent")
    at_hand = [row for (digest, row), now in zip(others.items(), digests, strict=True) if digest == now]
    found |= _predict(at_hand, [digest for digest in digests if digest in others], classifier, names)
    pairs = [(row.predicted == row.label, found[d] == names[row.label]) for d, row in wanted.items() if d in found]
    return {
        "run": portable_name(parent.path),
        "images": len(pairs),
        "before": sum(before for before, _ in pairs) / len(pairs) if pairs else None,
        "after": sum(after for _, after in pairs) / len(pairs) if pairs else None,
        "trained_on": len(trained & wanted.keys()),
        "missing": len(others) - len(at_hand),
        "relabeled": len(relabeled),
    }


def _predict(
    rows: Sequence[StoredPrediction], digests: Sequence[bytes], classifier: Classifier, names: dict[str, str]
) -> dict[bytes, str]:
    """Return the class that the classifier predicts for images outside of DATA, by digest."""
    if not rows:
        return {}
    classes = classifier.images.dataset.classes
    samples = tuple(Sample(path=row.path, label=classes.index(names[row.label]), split="test") for row in rows)
    images = UsableImages(
        dataset=classifier.images.dataset,
        extraction=Extraction(digests=list(digests)),
        duplicates=Duplicates(extra=0, across_classes=(), across_splits=()),
        splits=SplitDataset(
            samples=samples, digests=tuple(digests), keys=tuple(map(bytes.hex, digests)), cross_validated=False
        ),
    )
    data = TailData(extractor=classifier.extractor, images=images, batch_size=BATCH_SIZE, views=None)
    found, logits = predict_logits_of_rows(data, range(len(rows)))
    return {digests[row]: classes[label] for row, label in zip(found, logits.argmax(axis=1).tolist(), strict=True)}

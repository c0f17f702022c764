"""`tlcli compare`: measure how the accuracies of two runs differ on the same images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tlcli.datasets.corrections import AppliedCorrections
from tlcli.datasets.dataset import Sample, open_dataset
from tlcli.datasets.descriptions import describe_reading
from tlcli.errors import ArtifactError, DataError, first_reasons
from tlcli.features.file_digests import DigestReader
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.inference.paired_comparison import ComparedRun, PairedComparison, PairedImage
from tlcli.inference.predictor import Predictor
from tlcli.progress import Reporter, Silent
from tlcli.reports.compare_page import compare_page
from tlcli.runs.run import Run, describe_freeze, load_run
from tlcli.runs.stored_predictions import StoredPrediction, stored_predictions
from tlcli.settings import CompareSettings, ComputeSettings
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.outputs import Target, check_writable, published_if
from tlcli.storage.publish import atomic_write
from tlcli.storage.urls import Location

NAMED_CLASSES = 3
"""Classes that a message names, at most."""


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """The comparison of two runs."""

    a: ComparedRun
    b: ComparedRun
    split: str
    """The images that were compared: `train`, `validation`, `test`, or `all`."""
    metrics: dict[str, Any]
    """See `PairedComparison.result`."""
    failures: list[dict[str, str]]
    """Path and reason of each image that could not be read."""
    corrections: AppliedCorrections | None
    """The labels of DATA that were corrected."""
    out: str | None
    """The page, if one was written."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "a": self.a.name,
            "b": self.b.name,
            "split": self.split,
            **self.metrics,
            "failed": len(self.failures),
            "failures": self.failures,
            "corrections": self.corrections.to_json() if self.corrections else None,
            "out": self.out,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """The images to compare on."""

    split: str
    images: tuple[PairedImage, ...]
    failures: list[dict[str, str]] = field(default_factory=list)
    corrections: AppliedCorrections | None = None


class _Predicted(NamedTuple):
    """What one run predicts for one image."""

    predicted: str = ""
    confidence: float = 0.0
    error: str | None = None
    """Why the image cannot be read."""


def compare(settings: CompareSettings, report: Reporter | None = None) -> CompareResult:
    """Compare two runs on images that neither was trained on.

    Without DATA, these are the images whose predictions both runs stored: the test images if they have some in common,
    else also those that were held out for validation, or predicted out of fold. With DATA, both runs predict its test
    images if it has any, else all. Identical copies of an image count once.

    Raises:
        UsageError: An option has no effect, or the output exists.
        DataError: There is no such image, or DATA is unusable or has classes that the runs lack.
        ArtifactError: A run is damaged, or the runs have different classes.
        MachineError: The device is missing, or memory ran out.
    """
    report = report or Silent()
    with published_if(settings.out, Target(option="--out"), report, overwrite=settings.overwrite) as out:
        started = time.monotonic()
        if out is not None:
            _check_output(settings, out)
        a, b = load_run(settings.run_a), load_run(settings.run_b)
        _check_classes(settings, a, b)
        pairs = (
            _stored_pairs(settings, a, b, report)
            if settings.data is None
            else _predicted_pairs(settings, settings.data, a, b, report)
        )
        comparison = PairedComparison(classes=a.classes, images=pairs.images)
        runs = _compared_run(settings.run_a, a), _compared_run(settings.run_b, b)
        metrics = comparison.result()
        if out is not None:
            page = compare_page(
                runs,
                split=pairs.split,
                metrics=metrics,
                flips=comparison.flips(),
                intensity=a.preprocessing.intensity,
                workers=settings.compute.worker_count(),
                report=report,
            )
            with atomic_write(out) as file:
                file.write(page.encode("utf8", "backslashreplace"))
    return CompareResult(
        a=runs[0],
        b=runs[1],
        split=pairs.split,
        metrics=metrics,
        failures=pairs.failures,
        corrections=pairs.corrections,
        out=None if settings.out is None else str(settings.out),
        seconds=time.monotonic() - started,
    )


def _check_output(settings: CompareSettings, out: Path) -> None:
    """Check that the page can be written, and is not inside what the command reads."""
    for folder, what in ((settings.run_a, "the run"), (settings.run_b, "the run"), (settings.data, "DATA")):
        if folder is not None and settings.out is not None:
            check_outside("--out", settings.out, folder, what)
    check_new_file("--out", out, replace=settings.overwrite)
    check_writable(out)


def _compared_run(location: Location, run: Run) -> ComparedRun:
    size = run.preprocessing
    return ComparedRun(
        name=str(location),
        description=f"{run.info['backbone']}, {describe_freeze(run.info['freeze'])}, {size.width} x {size.height} px, "
        f"tlcli {run.info.get('tlcli', 'of unknown version')}",
    )


def _check_classes(settings: CompareSettings, a: Run, b: Run) -> None:
    """Raise ArtifactError unless both runs have the same classes, in any order."""
    if set(a.classes) == set(b.classes):
        return

    def only(mine: Run, other: Run) -> str:
        names = [repr(name) for name in mine.classes if name not in other.classes]
        more = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
        return (", ".join(names[:NAMED_CLASSES]) or "none") + more

    raise ArtifactError(
        f"{settings.run_a} and {settings.run_b} have different classes: only in {settings.run_a}: "
        f"{only(a, b)}; only in {settings.run_b}: {only(b, a)}. Compare runs that were trained on the same classes.",
        path=settings.run_b,
    )


def _stored_pairs(settings: CompareSettings, a: Run, b: Run, report: Reporter) -> _Pairs:
    """Match the stored predictions of both runs by digest."""
    workers = settings.compute.worker_count()
    of_a, of_b = (stored_predictions(run, workers=workers, report=report) for run in (a, b))
    common = [(row, of_b[digest]) for digest, row in of_a.items() if digest in of_b]
    relabeled = sum(row_a.label != row_b.label for row_a, row_b in common)
    if relabeled:
        report.warn(
            f"the two runs have different labels for {relabeled:,} of {len(common):,} common images, which are left "
            "out. Pass DATA to compare on its labels."
        )
    known = [pair for pair in common if pair[0].label == pair[1].label]
    split = settings.split or ("test" if any(_are_in(pair, "test") for pair in known) else "all")
    chosen = [pair for pair in known if split == "all" or _are_in(pair, split)]
    if not chosen:
        what = "images" if split == "all" else f"{split} images"
        raise DataError(
            f"{settings.run_a} and {settings.run_b} have no held-out {what} in common: they stored predictions of "
            f"{len(of_a):,} and {len(of_b):,} held-out images, of which {len(common):,} are the same. Pass labeled "
            f"images that neither was trained on: tlcli compare {settings.run_a} {settings.run_b} DATA.",
            path=settings.run_b,
        )
    images = tuple(
        PairedImage(
            path=row_a.path,
            label=row_a.label,
            predicted=(row_a.predicted, row_b.predicted),
            confidence=(row_a.confidence, row_b.confidence),
        )
        for row_a, row_b in chosen
    )
    return _Pairs(split=split, images=images)


def _are_in(pair: tuple[StoredPrediction, StoredPrediction], split: str) -> bool:
    return pair[0].split == split == pair[1].split


def _predicted_pairs(settings: CompareSettings, data: Location, a: Run, b: Run, report: Reporter) -> _Pairs:
    """Predict images of DATA that neither run was trained on."""
    digests = DigestReader(None, workers=settings.compute.worker_count(), report=report)
    corrections, filters, columns = digests.corrections(settings.corrections), settings.filters, settings.columns
    dataset = open_dataset(data, classes=a.classes, filters=filters, columns=columns, corrections=corrections)
    describe_reading(dataset, report)
    split = settings.split or ("test" if dataset.has_split("test") else "all")
    samples = [sample for sample in dataset.samples if split in {"all", sample.split}]
    if not samples:
        raise DataError(
            f"{data} has no {split} images. Use --split all, or pass data with a folder named {split}.", path=data
        )
    unseen, failures = _unseen(samples, settings, a, b, report)
    of_a, of_b = (_predict(run, unseen, settings.compute, report) for run in (a, b))
    images = []
    for sample, at_a, at_b in zip(unseen, of_a, of_b, strict=True):
        if error := at_a.error or at_b.error:
            failures.append({"path": portable_name(sample.path), "error": error})
            continue
        images.append(
            PairedImage(
                path=sample.path,
                label=a.classes[sample.label],
                predicted=(at_a.predicted, at_b.predicted),
                confidence=(at_a.confidence, at_b.confidence),
            )
        )
    if not images:
        reasons = first_reasons((failure["path"], failure["error"]) for failure in failures)
        raise DataError(f"none of the images of {data} can be used: {reasons}", path=data)
    return _Pairs(split=split, images=tuple(images), failures=failures, corrections=dataset.corrections)


def _unseen(
    samples: Sequence[Sample], settings: CompareSettings, a: Run, b: Run, report: Reporter
) -> tuple[list[Sample], list[dict[str, str]]]:
    """Return the samples that neither run was trained on, without copies, and the failures of unreadable images."""
    by_digest: dict[bytes, Sample] = {}
    failures = []
    splits, seen = (a.splits(), b.splits()), [0, 0]
    with (
        ImageLoader(DecodeOptions(), workers=settings.compute.worker_count(), report=report) as loader,
        report.task("Match", len(samples)) as advance,
    ):
        for sample, image in zip(samples, loader.load(sample.path for sample in samples), strict=True):
            advance(1)
            if image.digest is None:
                failures.append({"path": portable_name(sample.path), "error": image.error or ""})
                continue
            trained = [known.get(image.digest) == "train" for known in splits]
            seen = [count + found for count, found in zip(seen, trained, strict=True)]
            if not any(trained):
                by_digest.setdefault(image.digest, sample)
    if not by_digest and any(seen):
        raise DataError(
            f"{settings.data} has no images that neither run was trained on: of {len(samples):,} images, "
            f"{settings.run_a} was trained on {seen[0]:,}, and {settings.run_b} on {seen[1]:,}. Pass other labeled "
            "images, or omit DATA to compare the predictions that the runs stored.",
            path=settings.data,
        )
    if any(seen):
        report.note(
            f"Of {len(samples):,} images, {settings.run_a} was trained on {seen[0]:,} and {settings.run_b} on "
            f"{seen[1]:,}; these are left out."
        )
    return list(by_digest.values()), failures


def _predict(run: Run, samples: Sequence[Sample], compute: ComputeSettings, report: Reporter) -> list[_Predicted]:
    predictor = Predictor(
        run,
        device=compute.device,
        engine=compute.engine,
        batch_size=compute.batch_size,
        workers=compute.workers,
        report=report,
    )
    predictions = []
    with report.task("Predict", len(samples)) as advance:
        for prediction in predictor.stream(sample.path for sample in samples):
            if prediction.label is None or prediction.probabilities is None:
                predictions.append(_Predicted(error=prediction.error or "unreadable"))
            else:
                confidence = float(prediction.probabilities[prediction.label])
                predictions.append(_Predicted(predicted=run.classes[prediction.label], confidence=confidence))
            advance(1)
    return predictions

"""predict: a run and images in, one row for each image out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlcli.cluster.parts import check_part_folder
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import DataError, UsageError
from tlcli.inference.explained_rows import ExplainedRows, check_explain, explain_folder
from tlcli.inference.journal import Journal, PredictionRow, check_output, columns, journal_path, write_csv
from tlcli.inference.predictor import Predictor
from tlcli.inference.resume import count_finished
from tlcli.inference.rows import Tally, rows_of
from tlcli.progress import Advance, Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import DEFAULT_EXPLAIN_LIMIT, PredictSettings
from tlcli.storage.files import check_outside, portable_name
from tlcli.storage.outputs import Target, published_if
from tlcli.storage.stored import stamp
from tlcli.storage.urls import Url, parse_location

if TYPE_CHECKING:
    from tlcli.insight.explanations.explainer import Explainer

ROWS = Target(option="--out")


@dataclass(kw_only=True)
class PredictResult(Tally):
    """What predict did."""

    out: str | None
    """Where the rows went; None where they are in `rows`."""
    skipped: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows themselves, by column name, where `out` is None."""
    unlisted: list[str] = field(default_factory=list)
    """Folders that could not be listed, and why."""
    explained: dict[str, Any] | None = None
    """Where the explanations are, for how many images, and how many of the first had none; None without."""
    shard: str | None = None
    """Which part of the images this is, `I/N`; None where it is all."""
    was_finished: bool = False
    """With `resume`: there was nothing left to do."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "out": self.out,
            "images": self.images,
            "failed": self.failed,
            "review": self.review,
            "labels": dict(self.labels.most_common()),
            "skipped": self.skipped,
            "unlisted": self.unlisted,
            "explained": self.explained,
            "shard": self.shard,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images / self.seconds, 1) if self.seconds else None,
        } | ({"rows": self.rows} if self.out is None else {})


def predict(
    settings: PredictSettings,
    report: Reporter | None = None,
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[str] | None = None,
) -> PredictResult:
    """Predict every image of the inputs.

    Args:
        settings: Which run, which images, where to.
        report: Told of progress.
        stdin: Where a list on standard input is read from.
        stdout: Where the rows go with `out="-"`.

    Raises:
        UsageError: the output exists already, or has an unknown suffix.
        DataError: an input does not exist, or there is no image at all.
        ArtifactError: the run is broken, or what is resumed was begun otherwise.
        MachineError: no such device, no memory, no room, no permission.
    """
    report = report or Silent()
    rows = None if settings.out in {None, "-"} else parse_location(settings.out or "")
    if isinstance(rows, Url) and settings.cluster is not None:
        raise UsageError(f"--out {rows}: with --cluster expected a folder that all its machines see, not a URL.")
    for option, chosen in (("--out", rows), ("--explain", settings.explain)):
        if chosen is not None:
            check_outside(option, chosen, settings.run, "the run")
    again, explanations = settings.overwrite or settings.resume, explain_folder(Path("explain")).as_target()
    with (
        published_if(rows, ROWS, report, overwrite=settings.overwrite, resume=settings.resume) as out,
        published_if(settings.explain, explanations, report, overwrite=again) as explain,
    ):
        return _predict(settings, out, explain, report, stdin or sys.stdin.buffer, stdout or sys.stdout)


def _predict(
    settings: PredictSettings,
    out: Path | None,
    explain: Path | None,
    report: Reporter,
    stdin: IO[bytes],
    stdout: IO[str],
) -> PredictResult:
    """Predict, with the rows to the file `out`, if there is one, and explanations to the folder `explain`."""
    started = time.monotonic()
    run = load_run(settings.run)
    result = PredictResult(out=settings.out)
    if out is not None and settings.cluster is not None:
        check_part_folder(out, run.directory, replace=settings.overwrite or settings.resume)
    elif out is not None:
        check_output(out, run.directory, settings.inputs, overwrite=settings.overwrite, resume=settings.resume)
    inputs = PredictionInputs(settings.inputs, stdin, settings.shard)
    total, listing = _survey(inputs, exactly=out is not None)
    result.skipped = {reason: count for reason, count in inputs.skipped.items() if count}
    result.unlisted = list(inputs.unlisted)
    for problem in result.unlisted:
        report.warn(f"{problem}; its images have no rows.")
    if not inputs.total:
        raise DataError(f"no images in {', '.join(settings.inputs)}: nothing to predict.", path=settings.inputs[0])
    if settings.shard is not None:
        result.shard = str(settings.shard)
        report.note(f"Shard     {settings.shard}: {total:,} of {inputs.total:,} images")
    names = columns(run.classes, top=settings.top, probabilities=settings.probabilities)
    if settings.cluster is not None:
        from tlcli.cluster.predictions import predict_on_cluster

        signature = _signature(run, settings, listing)
        tally, result.was_finished = predict_on_cluster(
            settings, settings.cluster, signature=signature, names=names, paths=inputs, report=report
        )
        if result.was_finished:
            report.note(f"{settings.out} was finished before.")
        result.add(tally)
        result.seconds = time.monotonic() - started
        return result
    finished = out is not None and settings.resume and out.exists() and not journal_path(out).exists()
    explainer = _open_explainer(run, settings, inputs, out, explain, report)
    selection = ExplainedRows((settings.explain_limit or DEFAULT_EXPLAIN_LIMIT) if explainer else 0)
    if out is not None and finished:
        result.was_finished = True
        count_finished(out, names, inputs, settings, run, result, selection)
        report.note(f"{settings.out} was finished before.")
        if explainer is None:
            return result
    predictor = Predictor(run, settings.compute, report)
    if not finished:
        with report.task("Predict", total) as advance:
            _write(predictor, inputs, names, listing, settings, out or stdout, report, result, selection, advance)
    if explainer is not None and explain is not None:
        with explain_folder(explain).publish(replace=settings.overwrite or settings.resume) as folder:
            images = explainer.write(folder, selection, predictor)
        result.explained = {
            "out": portable_name(str(settings.explain)),
            "images": images,
            "skipped": selection.skipped + len(selection.rows) - images,
        }
    result.seconds = time.monotonic() - started
    return result


def _open_explainer(
    run: Run,
    settings: PredictSettings,
    inputs: PredictionInputs,
    out: Path | None,
    explain: Path | None,
    report: Reporter,
) -> Explainer | None:
    """What explains, if that is wanted; it is opened before anything is predicted, since it may be impossible."""
    if explain is None:
        return None
    check_explain(
        explain,
        run=run.directory,
        rows=out,
        inputs=settings.inputs,
        images=inputs,
        replace=settings.overwrite or settings.resume,
    )
    from tlcli.insight.explanations.explainer import Explainer

    return Explainer(run, settings.compute, report)


def _write(
    predictor: Predictor,
    inputs: PredictionInputs,
    names: Sequence[str],
    listing: str,
    settings: PredictSettings,
    out: Path | IO[str],
    report: Reporter,
    result: PredictResult,
    selection: ExplainedRows,
    advance: Advance,
) -> None:
    """Predict, and write the rows where they go: to a file; to a stream, with `-`; or into the result."""
    if not isinstance(out, Path):
        file = out if settings.out == "-" else None
        if file:
            write_csv(file, names, (), header=True)
        for rows in _rows(predictor, iter(inputs), settings, result, selection, advance):
            if file:
                write_csv(file, names, rows, header=False)
            else:
                result.rows += [dict(zip(names, row, strict=True)) for row in rows]
        return
    signature = _signature(predictor.run, settings, listing)
    with Journal(out, signature, resume=settings.resume, report=report) as journal:
        paths = _after(journal, iter(inputs), result, selection)
        advance(journal.done)
        for rows in _rows(predictor, paths, settings, result, selection, advance):
            journal.add(rows)
        journal.finish(names)


def _survey(inputs: PredictionInputs, *, exactly: bool) -> tuple[int, str]:
    """How many images there are, and a hash of their paths; `exactly`: also of their sizes and times of change."""
    digest, total = hashlib.sha256(), 0
    for path in inputs:
        digest.update(os.fsencode(path) + b"\0")
        if exactly:
            with contextlib.suppress(OSError, ValueError):  # what isn't there has a failed row
                size, version = stamp(path)
                digest.update(f"{size} {version}\0".encode())
        total += 1
    return total, digest.hexdigest()


def _signature(run: Run, settings: PredictSettings, listing: str) -> dict[str, Any]:
    """All that decides what the rows are."""
    return {
        "run": run.info["sha256"],
        "top": settings.top,
        "probabilities": settings.probabilities,
        "min_confidence": settings.min_confidence,
        "inputs": listing,
        "shard": None if settings.shard is None else str(settings.shard),
    }


def _after(journal: Journal, paths: Iterator[str], result: PredictResult, selection: ExplainedRows) -> Iterator[str]:
    """The paths that the journal doesn't have yet; those it has are counted."""
    for row in islice(journal.rows(), journal.done):
        _count(result, selection, next(paths), row)
    return paths


def _rows(
    predictor: Predictor,
    paths: Iterator[str],
    settings: PredictSettings,
    result: PredictResult,
    selection: ExplainedRows,
    advance: Advance,
) -> Iterator[list[PredictionRow]]:
    """Rows of the images, a few at a time, counted."""
    for some in rows_of(predictor, paths, settings):
        for prediction, row in some:
            _count(result, selection, prediction.path, row)
        yield [row for _, row in some]
        advance(len(some))


def _count(result: PredictResult, selection: ExplainedRows, file: str, row: PredictionRow) -> None:
    selection.offer(file, row[1], row[2])
    result.count(row)

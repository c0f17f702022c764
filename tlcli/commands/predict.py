"""`tlcli predict`: predict the class of each image, and write one row per image."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlcli.cluster.part_folder import check_part_folder
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import UsageError
from tlcli.inference.explained_rows import ExplainedRows, check_explain, explain_folder
from tlcli.inference.journal import journal_path
from tlcli.inference.output import check_output, open_output
from tlcli.inference.predictor import Predictor
from tlcli.inference.result import PredictResult
from tlcli.inference.resume import finished_rows
from tlcli.inference.row_files import PredictionRow
from tlcli.inference.row_options import row_options
from tlcli.inference.rows import RowOptions, predict_rows, row_columns
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import DEFAULT_EXPLAIN_LIMIT, PredictSettings
from tlcli.storage.files import check_outside, portable_name
from tlcli.storage.outputs import Target, published_if
from tlcli.storage.urls import Url, parse_location

if TYPE_CHECKING:
    from tlcli.insight.explanations.explainer import Explainer

ROWS = Target(option="--out")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What to predict, once the run is loaded and the images are listed."""

    settings: PredictSettings
    run: Run
    inputs: PredictionInputs
    images: int
    """Number of images in `inputs`."""
    options: RowOptions
    columns: list[str]
    signature: dict[str, Any]
    """Everything that determines the rows."""
    report: Reporter

    @property
    def may_replace(self) -> bool:
        """Whether outputs of an earlier command may be replaced."""
        return self.settings.overwrite or self.settings.resume


def predict(
    settings: PredictSettings,
    report: Reporter | None = None,
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[str] | None = None,
) -> PredictResult:
    """Predict all images of the inputs.

    Args:
        settings: The run, the inputs, and the outputs.
        report: Receives progress and warnings.
        stdin: The file to read a list of images from; None is standard input.
        stdout: The file to write rows to with `out="-"`; None is standard output.

    Raises:
        UsageError: The output already exists, or its suffix is unknown.
        DataError: An input does not exist, or there are no images.
        ArtifactError: The run is damaged, or the output to resume was started with other inputs or options.
        MachineError: The device is missing, memory or disk space ran out, or permission was denied.
    """
    report = report or Silent()
    rows = None if settings.out in {None, "-"} else parse_location(settings.out or "")
    if isinstance(rows, Url) and settings.cluster is not None:
        raise UsageError(f"--out {rows}: with --cluster, expected a folder that all its machines share, not a URL.")
    for option, location in (("--out", rows), ("--explain", settings.explain)):
        if location is not None:
            check_outside(option, location, settings.run, "the run")
    may_replace = settings.overwrite or settings.resume
    cards = explain_folder(Path("explain")).as_target()
    with (
        published_if(rows, ROWS, report, overwrite=settings.overwrite, resume=settings.resume) as out,
        published_if(settings.explain, cards, report, overwrite=may_replace) as explain,
    ):
        started = time.monotonic()
        job, result = _prepare(settings, out, stdin or sys.stdin.buffer, report)
        if settings.cluster is not None:
            _predict_on_cluster(job, result)
        elif out is not None and settings.resume and out.exists() and not journal_path(out).exists():
            _reuse_finished(job, out, explain, result)
            if explain is None:
                return result
        else:
            _predict_here(job, out, explain, result, stdout or sys.stdout)
        result.seconds = time.monotonic() - started
        return result


def _prepare(
    settings: PredictSettings, out: Path | None, stdin: IO[bytes], report: Reporter
) -> tuple[_Job, PredictResult]:
    """Load the run, check the output, and list the images.

    Returns:
        The job, and a result without rows.
    """
    run = load_run(settings.run)
    if out is not None and settings.cluster is not None:
        check_part_folder(out, run.directory, replace=settings.overwrite or settings.resume)
    elif out is not None:
        check_output(out, run.directory, settings.inputs, overwrite=settings.overwrite, resume=settings.resume)
    inputs = PredictionInputs(settings.inputs, stdin, settings.shard, settings.filters, settings.columns)
    images, listing = inputs.count_and_digest(with_stamps=out is not None)
    result = PredictResult(
        out=settings.out,
        skipped={reason: count for reason, count in inputs.skipped.items() if count},
        unlisted=list(inputs.unlisted),
        shard=None if settings.shard is None else str(settings.shard),
    )
    for problem in result.unlisted:
        report.warn(f"{problem}; its images have no rows.")
    for option in inputs.unused_filters():  # no error, because tomorrow's images may have such names
        report.warn(f"{option} matches no file or folder of {', '.join(settings.inputs)}.")
    if not inputs.total:
        raise inputs.no_images()
    if settings.shard is not None:
        report.note(f"Shard     {settings.shard}: {images:,} of {inputs.total:,} images")
    options, result.decisions = row_options(run, settings, report)
    job = _Job(
        settings=settings,
        run=run,
        inputs=inputs,
        images=images,
        options=options,
        columns=row_columns(run.classes, options),
        signature=_signature(run, settings, options, listing),
        report=report,
    )
    return job, result


def _signature(run: Run, settings: PredictSettings, options: RowOptions, listing: str) -> dict[str, Any]:
    """Return everything that determines the rows; `listing` is the hash of the images' paths."""
    shard = None if settings.shard is None else str(settings.shard)
    return {"run": run.info["sha256"], "inputs": listing, "shard": shard} | options.signature()


def _predict_on_cluster(job: _Job, result: PredictResult) -> None:
    """Predict all images on a cluster, which writes the parts to `--out`."""
    from tlcli.cluster.predictions import PartsSpec, predict_on_cluster
    from tlcli.cluster.ray_cluster import ClusterRequest

    settings, cluster = job.settings, job.settings.cluster
    assert cluster is not None
    spec = PartsSpec(
        out=Path(settings.out or ""),
        run=settings.run,
        sha256=job.run.info["sha256"],
        names=job.columns,
        options=job.options,
        part_size=cluster.part_size,
        engine=settings.compute.engine,
        batch_size=settings.compute.batch_size,
        workers=settings.compute.workers,
    )
    counts, result.was_finished = predict_on_cluster(
        spec,
        ClusterRequest(address=cluster.address, cores=cluster.cores, device=settings.compute.device),
        signature=job.signature,
        paths=job.inputs,
        overwrite=settings.overwrite,
        report=job.report,
    )
    if result.was_finished:
        job.report.note(f"{settings.out} is already finished.")
    result.add(counts)


def _reuse_finished(job: _Job, out: Path, explain: Path | None, result: PredictResult) -> None:
    """Count the rows of a finished output instead of predicting them again, and explain them if asked."""
    explainer, explained = _open_explainer(job, out, explain)
    result.was_finished = True
    rows = finished_rows(out, job.columns, job.inputs, options=job.options, run=job.run, location=job.settings.run)
    for path, row in rows:
        _count(path, row, result, explained)
    job.report.note(f"{job.settings.out} is already finished.")
    if explainer is not None and explain is not None:
        predictor = _open_predictor(job)
        result.explained = _write_explanations(job, explain, explainer, explained, predictor)


def _open_predictor(job: _Job) -> Predictor:
    compute = job.settings.compute
    device, engine, batch_size, workers = compute.device, compute.engine, compute.batch_size, compute.workers
    return Predictor(job.run, device=device, engine=engine, batch_size=batch_size, workers=workers, report=job.report)


def _predict_here(job: _Job, out: Path | None, explain: Path | None, result: PredictResult, stdout: IO[str]) -> None:
    """Predict all images on this machine, write their rows, and explain them if asked."""
    explainer, explained = _open_explainer(job, out, explain)
    predictor = _open_predictor(job)
    stream = stdout if job.settings.out == "-" else None
    destination = out or stream or result.rows
    paths = iter(job.inputs)
    with (
        job.report.task("Predict", job.images) as advance,
        open_output(destination, job.columns, job.signature, job.report, resume=job.settings.resume) as (done, write),
    ):
        for row in done:
            _count(next(paths), row, result, explained)
        advance(result.images)
        for batch in predict_rows(predictor, paths, job.options):
            for prediction, row in batch:
                _count(prediction.path, row, result, explained)
            write([row for _, row in batch])
            advance(len(batch))
    if explainer is not None and explain is not None:
        result.explained = _write_explanations(job, explain, explainer, explained, predictor)


def _count(path: str, row: PredictionRow, result: PredictResult, explained: ExplainedRows) -> None:
    """Count the row of an image, and take it for explanation if it is one of the first."""
    _, label, confidence = row[:3]
    explained.offer(path, label, confidence)
    result.count(row)


def _open_explainer(job: _Job, out: Path | None, explain: Path | None) -> tuple[Explainer | None, ExplainedRows]:
    """Open the explainer before anything is predicted, because the network may not support it; None without `explain`.

    Returns:
        The explainer, and the rows to explain: none yet.
    """
    if explain is None:
        return None, ExplainedRows(limit=0)
    check_explain(
        explain, run=job.run.directory, rows=out, inputs=job.settings.inputs, images=job.inputs, replace=job.may_replace
    )
    from tlcli.insight.explanations.explainer import Explainer

    compute = job.settings.compute
    explainer = Explainer(
        job.run, device=compute.device, workers=compute.worker_count(), batch_size=compute.batch_size, report=job.report
    )
    return explainer, ExplainedRows(limit=job.settings.explain_limit or DEFAULT_EXPLAIN_LIMIT)


def _write_explanations(
    job: _Job, explain: Path, explainer: Explainer, explained: ExplainedRows, predictor: Predictor
) -> dict[str, Any]:
    """Write the folder `explain`, and return the entry `explained` of the result."""
    with explain_folder(explain).publish(replace=job.may_replace) as folder:
        images = explainer.write(folder, explained, predictor)
    return {
        "out": portable_name(str(job.settings.explain)),
        "images": images,
        "skipped": explained.skipped + len(explained.rows) - images,
    }

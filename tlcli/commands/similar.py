"""`tlcli similar`: find the images of DATA that are nearest to each query, by the cosine of their features."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.labeling_source import open_if_labeled
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor, describe_cut
from tlcli.inference.neighbor_rows import NEIGHBOR_COLUMNS, Answer
from tlcli.inference.row_files import write_csv, write_rows
from tlcli.inference.similarity_search import SearchedImages, SimilaritySearch
from tlcli.progress import Reporter, Silent
from tlcli.reports.similar_page import similar_page
from tlcli.runs.directory import is_run
from tlcli.settings import SimilarSettings, TableColumns
from tlcli.settings.similar import PAGE_SUFFIX
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.folders import exclusive_write
from tlcli.storage.outputs import Target, check_writable, published_if
from tlcli.storage.urls import parse_location
from tlcli.web.label.network import open_labeling_network


@dataclass(kw_only=True)
class SimilarResult:
    """What was searched, and what was found."""

    out: str | None
    """Where the rows were written; None if they are in `rows`."""
    network: str
    images: int
    """Images that were searched."""
    unusable: list[tuple[str, str]]
    """Path and reason of each image of DATA that cannot be read."""
    labeled: bool
    """Whether DATA has labels."""
    queries: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of each query that cannot be read."""
    unlisted: list[str] = field(default_factory=list)
    """Folders that could not be listed, and why."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows by column name, if `out` is None."""
    seconds: float = 0.0

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        self.queries += 1
        if answer.error is not None:
            self.failed.append((portable_name(answer.path), answer.error))

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "out": self.out,
            "network": self.network,
            "images": self.images,
            "unusable": len(self.unusable),
            "labeled": self.labeled,
            "queries": self.queries,
            "failed": len(self.failed),
            "failures": [{"path": path, "error": reason} for path, reason in self.failed + self.unusable],
            "unlisted": self.unlisted,
            "seconds": round(self.seconds, 3),
        } | ({"rows": self.rows} if self.out is None else {})


def similar(
    settings: SimilarSettings,
    report: Reporter | None = None,
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[str] | None = None,
) -> SimilarResult:
    """Find the nearest images of all queries.

    Args:
        settings: The network, the queries, and the images to search.
        report: Receives progress and warnings.
        stdin: The file to read a list of images from; None is standard input.
        stdout: The file to write rows to with `out="-"`; None is standard output.

    Raises:
        UsageError: There is no such backbone, or the output exists.
        DataError: DATA or an input does not exist or has no images, or no image of DATA can be read.
        ArtifactError: The run, the weights, or the cache are invalid.
        MachineError: The disk is full, permission is denied, there is no such device, or the weights would have to be
            downloaded.
    """
    report = report or Silent()
    destination = None if settings.out in {None, "-"} else parse_location(settings.out or "")
    if destination is not None and is_run(settings.network):
        check_outside("--out", destination, parse_location(settings.network), "the run")
    with published_if(destination, Target(option="--out"), report, overwrite=settings.overwrite) as out:
        return _similar(settings, out, stdin or sys.stdin.buffer, stdout or sys.stdout, report)


def _similar(
    settings: SimilarSettings, out: Path | None, stdin: IO[bytes], stdout: IO[str], report: Reporter
) -> SimilarResult:
    started = time.monotonic()
    if out is not None:
        inputs = [name.removeprefix("@") for name in (settings.data, *settings.inputs)]
        check_new_file("--out", out, replace=settings.overwrite, inputs=inputs)
        check_writable(out)
    queries = PredictionInputs(settings.inputs, stdin)
    paths = list(queries)
    if not paths:
        raise queries.no_images()
    images = _open_data(settings, stdin, report)
    unlisted = [*queries.unlisted, *images.unlisted]
    for problem in unlisted:
        report.warn(f"{problem}; its images are left out.")
    count = len(paths) + len(images.paths)
    network = open_labeling_network(settings.wanted, settings.compute, settings.cache, count, report)
    extractor = network.extractor
    report.note(extractor.network.describe(describe_cut(extractor.cut)))
    search = SimilaritySearch(images, extractor, verify=settings.cache.verify)
    result = SimilarResult(
        out=settings.out,
        network=settings.network,
        images=len(search.usable),
        unusable=search.unusable,
        labeled=images.labels is not None,
        unlisted=unlisted,
    )
    answers = _counted(search.answers(paths, settings.top), result)
    if out is None:
        rows = chain.from_iterable(answer.rows() for answer in answers)
        if settings.out == "-":
            write_csv(stdout, NEIGHBOR_COLUMNS, rows, header=True)
        else:
            result.rows = [dict(zip(NEIGHBOR_COLUMNS, row, strict=True)) for row in rows]
    else:
        _write(out, answers, extractor, settings, report)
    result.seconds = time.monotonic() - started
    return result


def _counted(answers: Iterator[Answer], result: SimilarResult) -> Iterator[Answer]:
    for answer in answers:
        result.count(answer)
        yield answer


def _open_data(settings: SimilarSettings, stdin: IO[bytes], report: Reporter) -> SearchedImages:
    """List the images to search, with their labels if they have any."""
    dataset = open_if_labeled(settings.data, settings.filters, settings.columns)
    if dataset is not None:
        describe_dataset(dataset, report)
        labels = [dataset.classes[sample.label] for sample in dataset.samples]
        return SearchedImages(source=settings.data, paths=[sample.path for sample in dataset.samples], labels=labels)
    columns = TableColumns(image_column=settings.columns.image_column)
    if settings.columns != columns:
        raise UsageError(f"--label-column has no effect: {settings.data} has no labels. Remove the option.")
    inputs = PredictionInputs((settings.data,), stdin, None, settings.filters, columns)
    paths = list(inputs)
    if not paths:
        raise inputs.no_images("--in: ")
    for option in inputs.unused_filters():
        report.warn(f"{option} matches no file or folder of {settings.data}.")
    report.note(f"{settings.data}: {len(paths):,} images without labels")
    return SearchedImages(source=settings.data, paths=paths, labels=None, unlisted=inputs.unlisted)


def _write(
    out: Path, answers: Iterator[Answer], extractor: FeatureExtractor, settings: SimilarSettings, report: Reporter
) -> None:
    """Write the rows or the page to `out`, whole."""
    suffix = out.suffix.lower()
    with exclusive_write(out, report) as file:
        if suffix != PAGE_SUFFIX:
            rows = chain.from_iterable(answer.rows() for answer in answers)
            write_rows(file, suffix, NEIGHBOR_COLUMNS, rows)
            return
        page = similar_page(
            list(answers),
            network=settings.network,
            data=settings.data,
            intensity=extractor.network.preprocessing.intensity,
            workers=settings.compute.worker_count(),
            report=report,
        )
        file.write(page.encode("utf8", "backslashreplace"))

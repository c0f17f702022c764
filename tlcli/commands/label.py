"""`tlcli label`: label images in the browser, with the network's proposals."""

from __future__ import annotations

import contextlib
import math
import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tlcli.checking.review_order import rank_labels
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.label_table import LabelTable, is_label_table, path_key
from tlcli.datasets.labeling_source import LabelingSource, open_labeling_source
from tlcli.datasets.reviewed_labels import ReviewedLabels
from tlcli.features.extractor import describe_cut
from tlcli.progress import Reporter, Silent
from tlcli.settings import LabelSettings
from tlcli.settings.network import intensity_range
from tlcli.storage.files import check_new_file, portable_name, sha256_file
from tlcli.storage.locks import lock_output
from tlcli.storage.outputs import check_writable
from tlcli.storage.publish import remove_leftovers
from tlcli.training.active_learning.learner import ActiveLearner
from tlcli.web.browser import open_in_browser
from tlcli.web.label.app import label_app
from tlcli.web.label.history import history_path
from tlcli.web.label.network import LabelingNetwork, open_labeling_network
from tlcli.web.label.progress import ChunkReporter, describe_session
from tlcli.web.label.proposer import Guide, Proposer
from tlcli.web.label.session import Session
from tlcli.web.label.store import LabelStore
from tlcli.web.label.thumbnails import Thumbnails
from tlcli.web.server import Address, address_of, listen, new_token, serving

RANKING = "The labels that are least likely to be right are shown once all features are computed and compared."
FIRST_CHUNK, LARGEST_CHUNK = 64, 4096
"""Images whose features are computed together: few at first, so that proposals come soon."""


def label(
    settings: LabelSettings,
    report: Reporter | None = None,
    *,
    announce: Callable[[Address], None],
    stop: threading.Event | None = None,
    stdin: IO[bytes] | None = None,
) -> dict[str, Any]:
    """Serve the page until `stop` is set, or a signal ends the command. Every label is on disk at once.

    Args:
        settings: The images, the table of labels, and the address.
        report: Receives progress and warnings.
        announce: Called with the address once the server listens.
        stop: Ends the session; None waits for a signal.
        stdin: The file to read a list of images from; None is standard input.

    Returns:
        The state at the end, as in `GET /api/state`.

    Raises:
        UsageError: The settings contradict each other.
        DataError: There are no images, or the table of labels is damaged.
        ArtifactError: The weights or the cache are invalid.
        MachineError: The address is taken, another process writes the table, or the disk is full.
    """
    report = report or Silent()
    if settings.out is not None:
        check_new_file("--out", settings.out, replace=True, inputs=[settings.source])
    source = open_labeling_source(
        settings.source,
        stdin or sys.stdin.buffer,
        has_classes=settings.classes is not None or is_label_table(settings.out),
        filters=settings.filters,
        columns=settings.columns,
    )
    out = settings.out_path(reviews=source.labels is not None)
    check_new_file("--out", out, replace=True, inputs=[settings.source])
    check_writable(out)
    _describe_source(settings, source, out, report)
    with lock_output(out, report), listen(settings.host, settings.port) as listening:
        remove_leftovers(out)
        remove_leftovers(history_path(out))
        job = _open_job(settings, source, out, report)
        with job.proposer, Thumbnails(intensity_range(settings.network.intensity), job.workers) as thumbnails:
            session = Session(source.paths, job.store, job.proposer, _about(settings, source, out))
            token = new_token()
            address = address_of(listening, settings.host, token)
            with serving(label_app(session, thumbnails, token=token, host=settings.host), listening):
                announce(address)
                with open_in_browser(address.url) if settings.browser else contextlib.nullcontext():
                    try:
                        job.compute_features(stop)
                        job.proposer.run_until(stop)
                    except BaseException as error:
                        error.add_note(describe_session(session.state()))
                        raise
            return session.state()


@dataclass(kw_only=True)
class _Job:
    """What a session needs, and the features that are computed beside it."""

    settings: LabelSettings
    source: LabelingSource
    store: LabelStore
    network: LabelingNetwork
    proposer: Proposer
    order: Sequence[int]
    """The images in the order in which features are computed: a random one, so that the first are like the others."""
    digests: list[bytes | None]
    """SHA-256 of each image's file, as far as its features are computed."""
    chunks: ChunkReporter
    report: Reporter
    failures: dict[int, str] = field(default_factory=dict)
    """Why images have no features."""

    @property
    def workers(self) -> int:
        """Number of decoder processes."""
        return self.settings.compute.worker_count()

    def compute_features(self, stop: threading.Event | None) -> None:
        """Compute the features of all images in chunks, and hand them to the proposer; then rank labels to review."""
        start, size = 0, FIRST_CHUNK
        with self.report.task("Features", len(self.order)) as self.chunks.advance:
            while start < len(self.order) and not (stop is not None and stop.is_set()):
                self._compute_chunk(self.order[start : start + size])
                start, size = start + size, min(4 * size, LARGEST_CHUNK)
        if self.failures:
            image, reason = next(iter(self.failures.items()))
            self.report.warn(
                f"{len(self.failures):,} of {len(self.order):,} images cannot be read and are not shown: "
                f"{self.source.paths[image]}: {reason}{', ...' if len(self.failures) > 1 else ''}"
            )
        if self.source.dataset is not None and start >= len(self.order):
            self._rank(self.source.dataset)

    def _rank(self, dataset: Dataset) -> None:
        """Show the labels that are least likely to be right first, then those that could not be checked."""
        seed = self.settings.network.seed
        ranking = rank_labels(self.network.extractor, dataset, self.digests, seed=seed, report=self.report)
        ranked = [label.sample for label in ranking]
        rest = set(range(len(self.digests))) - set(ranked) - self.failures.keys()
        self.proposer.guide = Guide(
            first=[*ranked, *sorted(rest)],
            reason="suspect",
            proposals={label.sample: (dataset.classes[label.suggested], label.confidence) for label in ranking},
            labels=self.proposer.guide.labels,
        )
        self.proposer.notice = ""

    def _compute_chunk(self, chunk: Sequence[int]) -> None:
        paths = [self.source.paths[image] for image in chunk]
        counted = self.chunks.counted
        extraction = self.network.extractor.extract(paths, verify=self.settings.cache.verify)
        self.chunks.count(counted + len(chunk) - self.chunks.counted)
        known = [
            (image, digest)
            for place, (image, digest) in enumerate(zip(chunk, extraction.digests, strict=True))
            if digest is not None and place not in extraction.failures
        ]
        for image, digest in known:
            self.digests[image] = digest
        features = self.network.extractor.plain.gather([digest for _, digest in known])
        images = np.array([image for image, _ in known], np.int64)
        failed = {chunk[place]: reason for place, reason in extraction.failures.items()}
        self.failures |= failed
        dimensions = math.prod(self.network.extractor.cut.feature_shape)  # -1 cannot be inferred for no images
        self._propose(images, features)  # first: the state counts images as soon as they are added
        self.proposer.add(images, features.reshape(len(images), dimensions), failed)

    def _propose(self, images: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Let the run propose labels, if the network is that of a run."""
        probabilities = self.network.propose(features) if len(images) else None
        if probabilities is not None and self.source.labels is None:
            self.proposer.suggest(
                {
                    image: (self.network.classes[row.argmax()], float(row.max()))
                    for image, row in zip(images.tolist(), probabilities, strict=True)
                }
            )


def _open_job(settings: LabelSettings, source: LabelingSource, out: Path, report: Reporter) -> _Job:
    chunks = ChunkReporter(report)
    digests: list[bytes | None] = [None] * len(source.paths)
    table = LabelTable(out) if source.labels is None else _reviewed_labels(out, source.paths, source.labels, digests)
    network = open_labeling_network(settings.network, settings.compute, settings.cache, len(source.paths), chunks)
    store = LabelStore(table, source.paths, settings.classes or source.classes or network.classes)
    extractor = network.extractor
    report.note(extractor.network.describe(describe_cut(extractor.cut)))
    order = list(range(len(source.paths)))
    random.Random(settings.network.seed).shuffle(order)
    dimensions = math.prod(extractor.cut.feature_shape)
    guide = Guide(
        first=source.first,
        reason="review",
        proposals=dict(source.proposals),
        labels=None if source.labels is None else dict(enumerate(source.labels)),
    )
    proposer = Proposer(ActiveLearner(dimensions, seed=settings.network.seed), order, guide)
    if source.dataset is not None:
        proposer.notice = RANKING
    return _Job(
        settings=settings,
        source=source,
        store=store,
        network=network,
        proposer=proposer,
        order=order,
        digests=digests,
        chunks=chunks,
        report=report,
    )


def _reviewed_labels(
    out: Path, paths: Sequence[str], labels: Sequence[str], digests: Sequence[bytes | None]
) -> ReviewedLabels:
    numbers = {path_key(path): number for number, path in enumerate(paths)}

    def described(key: str) -> tuple[str, str]:
        digest = digests[numbers[key]]
        return sha256_file(Path(key)) if digest is None else digest.hex(), labels[numbers[key]]

    return ReviewedLabels(out, described)


def _describe_source(settings: LabelSettings, source: LabelingSource, out: Path, report: Reporter) -> None:
    for problem in source.unlisted:
        report.warn(f"{problem}; its images cannot be labeled.")
    if source.labels is None:
        report.note(f"{settings.source}: {len(source.paths):,} images to label, in {out}")
        return
    report.note(
        f"{settings.source}: {len(source.paths):,} labeled images of {len(source.classes):,} classes to review; "
        f"corrections go to {out}"
    )
    if source.dataset is not None and source.dataset.in_folders:
        report.note("          Its folders are taken for classes. To label the images from scratch, give --classes.")


def _about(settings: LabelSettings, source: LabelingSource, out: Path) -> dict[str, str]:
    """Return what the page shows of the settings. `data` is what `finetune` takes with the corrections of a review."""
    name = portable_name(settings.source)
    return {
        "source": name,
        "data": "DATA" if source.dataset is None else name,
        "out": portable_name(str(out)),
        "mode": "label" if source.labels is None else "review",
    }

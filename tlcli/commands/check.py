"""`tlcli check`: find and report possible problems of a dataset, without changing it."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.checking.copies import Copies, connected_components, copy_findings, files_by_digest
from tlcli.checking.dataset_checks import (
    mask_findings,
    mixed_level_findings,
    profile_findings,
    similar_name_findings,
)
from tlcli.checking.finding import (
    CONFLICT,
    DUPLICATE,
    KINDS,
    LEAK,
    MASK,
    MIXED_LEVELS,
    NEAR_DUPLICATE,
    PROFILE,
    SIMILAR_NAMES,
    SUSPECT,
    TINY,
    UNREADABLE,
    Finding,
    write_findings,
)
from tlcli.checking.image_checks import (
    balance_findings,
    class_counts,
    read_headers,
    tiny_findings,
    unreadable_findings,
)
from tlcli.checking.label_check import LabelCheck, check_labels
from tlcli.checking.near_duplicates import near_duplicates
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.group_pattern import suggest_group_by
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extractor import FeatureExtractor, describe_cut, freeze_at
from tlcli.features.file_digests import DigestReader
from tlcli.features.similar_samples import find_similar_samples
from tlcli.images.decode import Size
from tlcli.inference.starting_network import load_starting_network, open_starting_run
from tlcli.progress import Reporter, Silent
from tlcli.settings import CheckSettings
from tlcli.settings.grouping import NO_GROUPS, group_pattern
from tlcli.storage.files import check_new_file
from tlcli.storage.outputs import Target, check_writable, published_if


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The findings and statistics of a dataset."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    """Grouped by kind in the order of `KINDS`; the worst of each kind first."""
    labels: LabelCheck
    groups: int
    """Groups of near duplicates."""
    group_by: str | None
    """A `--group-by` that reproduces these groups; None if no pattern does, or the images have groups."""
    counts: dict[str, int]
    """Usable training images by class."""
    sizes: tuple[Size, ...]
    """Width and height in pixels of each readable image."""
    side: int
    """Shorter side of the network's input in pixels."""
    out: str | None
    """The CSV file, if one was written."""
    computed: int
    """Features that were computed."""
    reused: int
    """Features that were read from the cache."""
    seconds: float

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def to_json(self) -> dict[str, Any]:
        """Return the object for `--json`."""
        found = Counter(finding.kind for finding in self.findings)
        shorter = [min(size) for size in self.sizes]
        return {
            "images": len(self.dataset.samples),
            "unreadable": found[UNREADABLE],
            "duplicates": found[DUPLICATE],
            "near_duplicates": found[NEAR_DUPLICATE],
            "near_duplicate_groups": self.groups,
            "group_by": self.group_by,
            "leaks": found[LEAK],
            "conflicts": found[CONFLICT],
            "suspects": found[SUSPECT],
            "judged": self.labels.checked,
            "accuracy": self.labels.accuracy,
            "tiny": found[TINY],
            "masks": found[MASK],
            "mixed_levels": found[MIXED_LEVELS],
            "similar_names": found[SIMILAR_NAMES],
            "profiles": found[PROFILE],
            "shorter_side": {"smallest": min(shorter), "median": statistics.median(shorter)} if shorter else None,
            "classes": self.counts,
            "corrections": self.dataset.corrections.to_json() if self.dataset.corrections else None,
            "skipped": self.dataset.skipped,
            "notes": list(self.dataset.notes),
            "findings": [finding.to_json() for finding in self.findings],
            "out": self.out,
            "computed": self.computed,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
        }


def check(settings: CheckSettings, report: Reporter | None = None) -> CheckResult:
    """Find possible problems of the dataset DATA.

    Raises:
        UsageError: there is no such backbone, or the output exists.
        DataError: DATA is missing or unusable.
        ArtifactError: the weights or the cache are invalid.
        MachineError: the disk is full, permission is denied, there is no such device, or the weights would have to be
            downloaded.
    """
    report = report or Silent()
    with published_if(settings.out, Target(option="--out"), report, overwrite=settings.overwrite) as out:
        return _check(settings, out, report)


def _check(settings: CheckSettings, out: Path | None, report: Reporter) -> CheckResult:
    started = time.monotonic()
    if out is not None:
        check_new_file("--out", out, replace=settings.overwrite, inputs=[settings.data])
        check_writable(out)
    dataset = _open_data(settings, report)
    describe_dataset(dataset, report)
    extractor = _open(settings, dataset, report)
    paths = [sample.path for sample in dataset.samples]
    extraction = extractor.extract(paths, verify=settings.cache.verify)
    failures = extraction.failures
    readable = [index for index in range(len(paths)) if index not in failures]
    headers = read_headers(dataset, readable, settings.compute.worker_count(), report)
    sizes, failures = headers.sizes, failures | headers.failures
    usable = list(sizes)
    digests = [digest if index in sizes else None for index, digest in enumerate(extraction.digests)]
    copies = _copies(extractor, paths, digests, settings, report)
    usable_digests = [digests[index] or b"" for index in usable]
    similar = [] if settings.group_by == NO_GROUPS else _similar(extractor, dataset, usable, usable_digests)
    labels = check_labels(
        extractor,
        dataset,
        usable,
        usable_digests,
        [*copies.sample_groups, *similar],
        seed=settings.network.seed,
        report=report,
    )
    counts = class_counts(dataset, usable)
    side = min(extractor.network.preprocessing.height, extractor.network.preprocessing.width)
    findings = [
        *unreadable_findings(dataset, failures),
        *copy_findings(dataset, copies),
        *mask_findings(dataset),
        *labels.findings,
        *tiny_findings(dataset, sizes, side),
        *mixed_level_findings(dataset),
        *similar_name_findings(dataset),
        *profile_findings(dataset, headers.notes),
        *balance_findings(counts),
    ]
    findings.sort(key=lambda finding: KINDS.index(finding.kind))
    if out is not None:
        write_findings(out, findings, report)
    return CheckResult(
        dataset=dataset,
        findings=tuple(findings),
        labels=labels,
        groups=len(copies.groups),
        group_by=suggest_group_by(dataset, copies.sample_groups),
        counts=counts,
        sizes=tuple(sizes.values()),
        side=side,
        out=None if settings.out is None else str(settings.out),
        computed=extraction.computed,
        reused=extraction.reused,
        seconds=time.monotonic() - started,
    )


def _open_data(settings: CheckSettings, report: Reporter) -> Dataset:
    digests = DigestReader(settings.cache, workers=settings.compute.worker_count(), report=report)
    return open_dataset(
        settings.data,
        group_by=group_pattern(settings.group_by),
        filters=settings.filters,
        columns=settings.columns,
        corrections=digests.corrections(settings.corrections),
    )


def _open(settings: CheckSettings, dataset: Dataset, report: Reporter) -> FeatureExtractor:
    """Open the backbone with its layers frozen."""
    run, wanted = open_starting_run(settings.network)
    intensity = resolve_intensity(
        wanted.intensity,
        dataset,
        fraction=None,
        seed=wanted.seed,
        workers=settings.compute.worker_count(),
        report=report,
    )
    compute = settings.compute
    # Before the weights are loaded, so that a missing device fails at once.
    choice = choose_engine(compute.device, compute.precision, compute.engine, images=len(dataset.samples))
    cache = FeatureCache(settings.cache.root() if settings.cache.enabled else None, report)
    network = place_backbone(
        load_starting_network(wanted, run, classes=len(dataset.classes), cache=cache),
        choice,
        fit=wanted.input_fit,
        intensity=intensity,
        cache=cache,
        report=report,
    )
    extractor = freeze_at(
        network,
        wanted.freeze,
        workers=settings.compute.worker_count(),
        batch_size=settings.compute.batch_size,
    )
    report.note(network.describe(describe_cut(extractor.cut)))
    return extractor


def _copies(
    extractor: FeatureExtractor,
    paths: list[str],
    digests: list[bytes | None],
    settings: CheckSettings,
    report: Reporter,
) -> Copies:
    """Find exact and near duplicates among the images that have a digest."""
    files = files_by_digest(digests)
    firsts = [indices[0] for indices in files]
    links = near_duplicates(
        extractor,
        [paths[index] for index in firsts],
        [digests[index] or b"" for index in firsts],
        settings.compute.worker_count(),
        report,
    )
    return Copies(files=files, links=links, groups=connected_components(links))


def _similar(
    extractor: FeatureExtractor, dataset: Dataset, usable: Sequence[int], digests: Sequence[bytes]
) -> list[list[int]]:
    """Return the groups of images that look alike, in any split, as sample indices."""
    similar = find_similar_samples(extractor, [dataset.samples[index] for index in usable], digests)
    return [[usable[row] for row in group] for group in similar.groups(np.ones(len(usable), np.bool_))]

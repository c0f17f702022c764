"""augment: a data set on disk in which each training image has distorted copies; classes and splits stay."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlcli.datasets.augmented_dataset import AugmentedImage, check_class_folder_names, plan_augmented_dataset
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset, describe_failures
from tlcli.errors import ArtifactError, UsageError
from tlcli.images.augment import draw_parameters
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import MAX_BYTES, DecodeOptions
from tlcli.inference.row_files import write_csv
from tlcli.progress import Reporter, Silent
from tlcli.reports.contact_sheet import contact_sheet
from tlcli.settings import SPLITS, AugmentSettings, intensity_range
from tlcli.storage.files import (
    canonical_json,
    check_new_file,
    check_outside,
    portable_name,
    read_sealed,
    sealed,
    write_json,
)
from tlcli.storage.folders import exclusive_write
from tlcli.storage.locks import lock_output
from tlcli.storage.outputs import Target, published_if
from tlcli.storage.publish import atomic_write, remove_temporary_files
from tlcli.storage.reading import UnreadableError, open_image_file
from tlcli.storage.urls import lies_in

BEGUN = "augment.json"
"""Written first: what the data set is made from."""

FORMAT = 1
"""Version of `augment.json`."""

BEGUN_BY = "a data set that tlcli augment began"

MANIFEST = "manifest.csv"
"""Written last: a row for each image. A data set without it is unfinished."""

DATA_SET = Target(
    option="--out",
    last=MANIFEST,
    foreign=lambda names: next(
        (name for name in names if name.partition("/")[0] not in {*SPLITS, BEGUN, MANIFEST}), None
    ),
    wanted={BEGUN, MANIFEST}.__contains__,
)

COLUMNS = ("path", "label", "split", "source", "digest", "view", "parameters")


def augment(settings: AugmentSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Write DATA's images and views 1 to `copies` of the training images to `out`, and draw the preview.

    Returns:
        The object of `--json`: out, images, written, seconds, splits, failed, failures, preview; and
        `was_finished` where `resume` found nothing to do.

    Raises:
        UsageError: `out` or `preview` exists already, or `out` lies in DATA.
        DataError: DATA is missing or unusable, or nothing of it could be held out.
        ArtifactError: what is resumed was begun otherwise.
        MachineError: no room, no permission, or another process is writing `out`.
    """
    report = report or Silent()
    if settings.preview is not None:
        check_outside("--preview", settings.preview, settings.data, "DATA")
    if settings.out is not None and (lies_in(settings.out, settings.data) or lies_in(settings.data, settings.out)):
        raise UsageError(
            f"--out {settings.out} and DATA {settings.data} lie in each other; images would be mixed. Choose a "
            "folder of its own."
        )
    again = settings.overwrite or settings.resume
    with (
        published_if(settings.preview, Target(option="--preview"), report, overwrite=again) as preview,
        published_if(settings.out, DATA_SET, report, resume=settings.resume) as out,
        _alone(out, report),
    ):
        return _augment(settings, out, preview, report)


def _augment(settings: AugmentSettings, out: Path | None, preview: Path | None, report: Reporter) -> dict[str, Any]:
    started = time.monotonic()
    if preview is not None:
        check_new_file("--preview", preview, replace=settings.overwrite or settings.resume)
    if out is not None:
        _check_out(out, settings)
    dataset = open_dataset(settings.data)
    if preview is not None:  # a table may name images anywhere
        images = (sample.path for sample in dataset.samples)
        check_new_file("--preview", preview, replace=True, inputs=images)
    result: dict[str, Any] = {
        "out": None if settings.out is None else str(settings.out),
        "images": len(dataset.samples),
        "written": 0,
        "splits": {},
        "preview": None if settings.preview is None else str(settings.preview),
        "failed": 0,
        "failures": [],
    }
    if out is not None:
        describe_dataset(dataset, report)
        check_class_folder_names(dataset.classes)
        outputs, failures = plan_augmented_dataset(dataset, settings, report)
        signature = _signature(settings) | _images(outputs)
        if (out / MANIFEST).exists():
            _check_begun(out, signature, settings)
            result["was_finished"] = True
        else:
            failures |= _write_data_set(out, outputs, signature, settings, report)
            describe_failures(dataset, failures, report)
            _write_manifest(out, dataset, outputs, settings)
            result["failed"] = len(failures)
            result["failures"] = [
                {"path": portable_name(dataset.samples[index].path), "error": reason}
                for index, reason in sorted(failures.items())
            ]
        result |= _survey(out)
    if preview is not None:
        sheet = contact_sheet(
            dataset,
            settings.augmentation,
            seed=settings.seed,
            workers=settings.compute.worker_count(),
            intensity=intensity_range(settings.intensity),
        )
        with exclusive_write(preview, report) as file:
            sheet.save(file, "PNG", optimize=True)
    return result | {"seconds": round(time.monotonic() - started, 3)}


def _alone(out: Path | None, report: Reporter) -> contextlib.AbstractContextManager[object]:
    """Let nobody else write `out`. Of a finished data set nothing is written, so it may be read-only."""
    if out is None or out.is_file() or (out / MANIFEST).exists():
        return contextlib.nullcontext()
    return lock_output(out, report)


def _check_out(out: Path, settings: AugmentSettings) -> None:
    """Refuse an output that can't be written, before anything is computed for it."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a folder, new or empty.")
    if not out.is_dir() or all(
        path.name.endswith(".tmp") for path in out.glob("*")
    ):  # as a kill at the start leaves it
        return
    if not settings.resume:
        raise UsageError(f"--out {out} is not empty. Choose another folder, or go on with it by --resume.")
    begun, asked = read_sealed(out / BEGUN, BEGUN_BY, form=FORMAT), _signature(settings)
    changed = [
        f"{name} was {begun.get(name)!r} and is {asked[name]!r}" for name in asked if asked[name] != begun.get(name)
    ]
    if changed:
        raise ArtifactError(
            f"{out} was begun with other settings: {'; '.join(changed)}. Repeat the command as it was, or choose "
            "another --out.",
            path=out,
        )


def _signature(settings: AugmentSettings) -> dict[str, Any]:
    """All settings that decide what is written."""
    return {
        "format": FORMAT,
        "data": portable_name(str(settings.data.absolute())),
        "copies": settings.copies,
        "seed": settings.seed,
        "augmentation": settings.augmentation.to_json(),
    } | ({"intensity": settings.intensity} if settings.intensity else {})


def _images(outputs: Sequence[AugmentedImage]) -> dict[str, Any]:
    """All of DATA that decides what is written."""
    listing = [(output.path, output.digest.hex(), output.view) for output in outputs]
    return {"images": hashlib.sha256(canonical_json(listing)).hexdigest()}


def _check_begun(out: Path, signature: dict[str, Any], settings: AugmentSettings) -> None:
    """Refuse to go on with other images."""
    if read_sealed(out / BEGUN, BEGUN_BY, form=FORMAT) != signature:
        raise ArtifactError(
            f"{out} was begun with other images: {settings.data} has changed since. Choose another --out.", path=out
        )


def _write_data_set(
    out: Path, outputs: Sequence[AugmentedImage], signature: dict[str, Any], settings: AugmentSettings, report: Reporter
) -> dict[int, str]:
    """Write the images that `out` lacks. Gives the reason for each sample that failed, by its index."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / BEGUN).exists():
        _check_begun(out, signature, settings)
    else:
        write_json(out / BEGUN, sealed(signature))
    remove_temporary_files(out, recursive=True)
    return _write_images(out, outputs, settings, report)


def _write_images(
    out: Path, outputs: Sequence[AugmentedImage], settings: AugmentSettings, report: Reporter
) -> dict[int, str]:
    """Copy originals byte for byte, and write views as PNG, so that no pixel of them changes."""
    todo = [output for output in outputs if not (out / output.path).exists()]
    failures: dict[int, str] = {}
    intensity = intensity_range(settings.intensity)
    order = DecodeOptions(png=True, augmentation=settings.augmentation, seed=settings.seed, intensity=intensity)
    with (
        ImageLoader(order, workers=settings.compute.worker_count()) as loader,
        report.task("Augment", len(todo)) as advance,
    ):
        requests = ((output.sample.path, output.view) for output in todo)
        for output, image in zip(todo, loader.load_views(requests), strict=True):
            advance(1)
            if image.error is not None or image.digest != output.digest:
                failures[output.index] = image.error or "changed while it was read"
                continue
            content = image.pixels if output.view else _original(output)
            if content is None:
                failures[output.index] = "changed while it was read"
                continue
            target = out / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as file:
                file.write(content)
    return failures


def _original(output: AugmentedImage) -> bytes | None:
    """The bytes of an original; None where it is gone, or another by now."""
    try:
        with open_image_file(output.sample.path, MAX_BYTES) as (file, _, _):
            content = file.read()
    except (OSError, UnreadableError):
        return None
    return content if hashlib.sha256(content).digest() == output.digest else None


def _write_manifest(out: Path, dataset: Dataset, outputs: Sequence[AugmentedImage], settings: AugmentSettings) -> None:
    """A row for each image that is there; it is a table that tlcli reads, too."""

    def row(output: AugmentedImage) -> list[Any]:
        whole = portable_name(str(out / output.path))
        amounts = draw_parameters(settings.augmentation, seed=settings.seed, view=output.view, digest=output.digest)
        return [
            whole if whole.startswith("file://") else output.path,
            dataset.classes[output.sample.label],
            output.sample.split,
            portable_name(output.sample.path),
            output.digest.hex(),
            output.view,
            json.dumps(amounts.to_json()) if output.view else "",
        ]

    rows = (row(output) for output in outputs if (out / output.path).exists())
    with atomic_write(out / MANIFEST) as file:
        text = io.TextIOWrapper(file, "utf8", newline="")
        write_csv(text, COLUMNS, rows, header=True)
        text.detach()


def _survey(out: Path) -> dict[str, Any]:
    """How many images of which split a finished data set has."""
    with (out / MANIFEST).open(encoding="utf8", newline="") as file:
        counts = Counter(row["split"] for row in csv.DictReader(file))
    return {"written": counts.total(), "splits": {split: counts[split] for split in SPLITS}}

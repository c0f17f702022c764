"""Checkpoints: what a training needs to go on, in files that appear whole or not at all. Nothing is ever unpickled.

A checkpoint's name holds the SHA-256 of its bytes. The one before the last is kept, so that a damaged one costs a few
steps, not the training.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tlcli.errors import ArtifactError
from tlcli.progress import Reporter
from tlcli.storage.files import read_sealed, sealed, write_json
from tlcli.storage.publish import atomic_write, remove_temporary_files

FORMAT = 1
"""Version of what is in here."""
ORIGIN = "origin.json"
EVERY = 30.0
"""Seconds between two checkpoints of one epoch."""
SHARE = 0.03
"""Share of the time that writing may take."""
IMAGES = "pictures"
"""The key, in what a run depends on, of its images' hash."""
_NAME = re.compile(r"(\d{6})-([0-9a-f]{32})\.safetensors")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: Where; made if it isn't there.
        origin: What the run depends on, such as its settings; a checkpoint made from anything else is refused.
        resume: Whether to go on from what is there; else it is removed.
        report: Told of a damaged checkpoint.

    Raises:
        ArtifactError: with `resume`, what is there was made from something else, or is damaged.
    """

    def __init__(self, directory: Path, origin: dict[str, Any], *, resume: bool, report: Reporter) -> None:
        self._directory = directory
        self._report = report
        self._number = 0
        self._due = time.monotonic() + EVERY
        if resume and (self._directory / ORIGIN).exists():
            _compare(_read_origin(self._directory), origin, directory.parent)
            remove_temporary_files(self._directory)
        else:
            if self._directory.exists():
                shutil.rmtree(self._directory)
            self._directory.mkdir()
            write_json(self._directory / ORIGIN, sealed({"format": FORMAT} | origin))

    def latest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Content and tensors of the last good checkpoint; None where there is none."""
        for path in sorted(self._files(), reverse=True):
            number, _, checksum = path.stem.partition("-")
            data = path.read_bytes()
            self._number = max(self._number, int(number))
            if hashlib.sha256(data).hexdigest()[:32] != checksum:
                self._report.warn(
                    f"{path} is damaged (its checksum differs); going on from an older one, if there is one."
                )
                continue
            try:
                length = int.from_bytes(data[:8], "little")  # safetensors' own function for this wants a file
                return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["content"]), load(data)
            except (SafetensorError, ValueError, KeyError) as error:
                message = f"{path} is no checkpoint of tlcli ({error}). Start again with --overwrite."
                raise ArtifactError(message, path=path) from error
        return None

    def save_if_due(self, make: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]], *, now: bool = False) -> None:
        """Write what `make` gives, where the last one is old enough or `now` is set."""
        started = time.monotonic()
        if not now and started < self._due:
            return
        content, tensors = make()
        # safetensors refuses tensors that share memory or are strided in their own way.
        data = save(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            metadata={"content": json.dumps(content)},
        )
        self._number += 1
        name = f"{self._number:06d}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        with atomic_write(self._directory / name) as file:
            file.write(data)
        for old in sorted(self._files())[:-2]:
            old.unlink()
        ended = time.monotonic()
        self._due = ended + max(EVERY, (ended - started) / SHARE)

    def _files(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]


def refuse_other(directory: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on from checkpoints of other settings, before any work.

    Raises:
        ArtifactError: naming what differs.
    """
    was = _read_origin(directory) if (directory / ORIGIN).exists() else {}
    _compare({name: was[name] for name in settings if name in was}, settings if was else {}, directory.parent)


def _read_origin(directory: Path) -> dict[str, Any]:
    """What checkpoints were made from.

    Raises:
        ArtifactError: the file is damaged, or of another format.
    """
    origin = read_sealed(directory / ORIGIN, "an unfinished run", form=FORMAT)
    del origin["format"]
    return origin


def _compare(was: dict[str, Any], asked: dict[str, Any], run: Path) -> None:
    changed = [
        f"{name} was {was.get(name)!r} and is {asked.get(name)!r}"
        for name in sorted(was.keys() | asked.keys())
        if was.get(name) != asked.get(name)
    ]
    if [name for name in was if was[name] != asked.get(name)] == [IMAGES]:
        raise ArtifactError(
            f"{run} was begun with other images: since then some were added, removed, edited or relabeled. Start "
            "again with --overwrite.",
            path=run,
        )
    if changed:
        raise ArtifactError(
            f"{run} was begun otherwise: {'; '.join(changed)}. Resume it as it was begun, or start again with "
            "--overwrite.",
            path=run,
        )

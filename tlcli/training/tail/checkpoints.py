"""Checkpoints: the state that a training resumes from, in files that appear completely or not at all.

Nothing is ever unpickled. A checkpoint's name contains the SHA-256 of its bytes. The last two are kept, so that a
damaged one costs a few steps, not the training.
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

FORMAT = 2
"""Version of the contents."""
ORIGIN = "origin.json"
EVERY = 30.0
"""Seconds between two checkpoints of one epoch."""
SHARE = 0.03
"""Fraction of the time that writing may take."""
IMAGES = "pictures"
"""Key of the images' hash in the origin."""
_NAME = re.compile(r"(\d{6})-([0-9a-f]{32})\.safetensors")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: Created if it does not exist.
        origin: What the run depends on, such as its settings. Checkpoints of another origin are refused.
        resume: Whether to continue from existing checkpoints; otherwise they are removed.
        report: Receives warnings about damaged checkpoints.

    Raises:
        ArtifactError: with `resume`, the existing checkpoints are of another origin, or damaged.
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
        """Return content and tensors of the last intact checkpoint; None if there is none."""
        for path in sorted(self._files(), reverse=True):
            number, _, checksum = path.stem.partition("-")
            data = path.read_bytes()
            self._number = max(self._number, int(number))
            if hashlib.sha256(data).hexdigest()[:32] != checksum:
                self._report.warn(f"{path} is damaged (its checksum differs); an older one is used, if there is one.")
                continue
            try:
                length = int.from_bytes(data[:8], "little")  # safetensors' own function for this needs a file
                return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["content"]), load(data)
            except (SafetensorError, ValueError, KeyError) as error:
                message = f"{path} is not a checkpoint of tlcli ({error}). Start again with --overwrite."
                raise ArtifactError(message, path=path) from error
        return None

    def save_if_due(self, make: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]], *, now: bool = False) -> None:
        """Write the content and tensors that `make` returns, if a checkpoint is due or `now` is set."""
        started = time.monotonic()
        if not now and started < self._due:
            return
        content, tensors = make()
        # safetensors refuses tensors that share memory or are not contiguous.
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
    """Refuse to resume from checkpoints of different settings, before any work.

    Raises:
        ArtifactError: the settings differ.
    """
    was = recorded_origin(directory) or {}
    _compare({name: was[name] for name in settings if name in was}, settings if was else {}, directory.parent)


def recorded_origin(directory: Path) -> dict[str, Any] | None:
    """Return the origin of the checkpoints in a folder; None if there are none.

    Raises:
        ArtifactError: the file is damaged, or of another format.
    """
    return _read_origin(directory) if (directory / ORIGIN).exists() else None


def _read_origin(directory: Path) -> dict[str, Any]:
    """Return the origin of some checkpoints.

    Raises:
        ArtifactError: the file is damaged, or of another format.
    """
    origin = read_sealed(directory / ORIGIN, "an unfinished run", form=FORMAT)
    del origin["format"]
    return origin


def _compare(was: dict[str, Any], requested: dict[str, Any], run: Path) -> None:
    changed = [
        f"{'images' if name == IMAGES else name} was {was.get(name)!r} and is {requested.get(name)!r}"
        for name in sorted(was.keys() | requested.keys())
        if was.get(name) != requested.get(name)
    ]
    if [name for name in was if was[name] != requested.get(name)] == [IMAGES]:
        raise ArtifactError(
            f"{run} was started with different images: some were added, removed, edited or relabeled since. Start "
            "again with --overwrite.",
            path=run,
        )
    if changed:
        raise ArtifactError(
            f"{run} was started with different settings: {'; '.join(changed)}. Resume it with the same settings, or "
            "start again with --overwrite.",
            path=run,
        )

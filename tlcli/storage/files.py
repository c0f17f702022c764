"""Contents and names of files: JSON with checksums, checks of output paths, portable names. Torch-free.

Writing a file completely or not at all is in `publish`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tlcli.errors import READ_ONLY_ERRNOS, ArtifactError, UsageError
from tlcli.storage.publish import atomic_write
from tlcli.storage.urls import Location, Url, lies_in

VISIBILITY_TIMEOUT = 120.0
"""Seconds until files that another machine wrote must be visible on a network drive."""


def save_checksummed(directory: Path, stem: str, suffix: str, content: bytes) -> None:
    """Save an expensive result as `STEM-<checksum>SUFFIX` for `load_checksummed`; skipped if the disk is read-only."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(directory / f"{stem}-{_checksum(content)}{suffix}") as file:
            file.write(content)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise


def load_checksummed(directory: Path, stem: str, suffix: str, on_damage: Callable[[Path], None]) -> bytes | None:
    """Load what `save_checksummed` wrote, or return None.

    A file with a wrong checksum is passed to `on_damage` and removed.
    """
    for path in sorted(directory.glob(f"{stem}-{'[0-9a-f]' * 32}{suffix}")):
        try:
            content = path.read_bytes()
        except OSError:  # removed meanwhile, of another user, or a folder
            continue
        if path.name == f"{stem}-{_checksum(content)}{suffix}":
            return content
        on_damage(path)
        with contextlib.suppress(OSError):  # it may be read-only
            path.unlink()
    return None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def check_new_file(option: str, path: Path, *, replace: bool, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check that an output file can be written, before anything is computed for it.

    Args:
        option: The option that names it, for messages.
        path: The file to be written.
        replace: Whether an existing file may be replaced.
        inputs: Files that the command reads, which are never replaced.

    Raises:
        UsageError: `path` is a folder or one of the inputs, its folder is missing, or it exists and `replace` is unset.
    """
    if path.exists() and any(os.path.exists(name) and os.path.samefile(path, name) for name in inputs):  # noqa: PTH110, PTH121
        raise UsageError(f"{option} {path} is an input of this command and would be replaced. Choose another {option}.")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; expected a file.")
    if path.exists() and not replace:
        raise UsageError(f"{path} exists. Choose another {option}, or replace it with --overwrite.")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: the folder {path.parent} does not exist. Create it first.")


def check_outside(option: str, path: Location, folder: Location, what: str) -> None:
    """Check that an output is outside a folder that the command reads.

    Args:
        option: The option that names the output, for messages.
        path: The output to be written.
        folder: The folder that is read.
        what: What the folder is, for messages: `DATA` or `the run`.

    Raises:
        UsageError: `path` is `folder` or lies below it.
    """
    if lies_in(path, folder) and (isinstance(folder, Url) or folder.is_dir()):
        raise UsageError(
            f"{option} {path} is inside {what} {folder}, which is read-only for this command. Choose a location "
            "outside it."
        )


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path` atomically, as indented JSON."""
    with atomic_write(path) as file:
        file.write(as_json(content))


def as_json(content: object) -> bytes:
    """Encode `content` as an indented, readable JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf8", "backslashreplace") + b"\n"


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: The file to read.
        what: What the object describes, for messages, such as `a run of tlcli`.

    Raises:
        ArtifactError: the file is missing or does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing, so this is not {what}.", path=path) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); expected JSON that describes {what}.", path=path) from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} does not contain a JSON object; expected one that describes {what}.", path=path)
    return content


def read_sealed(path: Path, what: str, *, form: int) -> dict[str, Any]:
    """Read a JSON object that was written with `sealed`, and verify its format and checksum.

    Args:
        path: The file to read.
        what: What the object describes, for messages.
        form: The expected value of its key `format`.

    Returns:
        The object without its checksum.

    Raises:
        ArtifactError: the file is missing, damaged, or has another format.
    """
    content = read_json(path, what)
    if content.get("format") != form:
        raise ArtifactError(f"{path} has format {content.get('format')!r}; this tlcli reads {form}.", path=path)
    if not is_sealed(content):
        raise ArtifactError(
            f"{path} is damaged (wrong checksum); expected a description of {what}. Start over at another location, or "
            "with --overwrite.",
            path=path,
        )
    del content["sha256"]
    return content


def canonical_json(content: object) -> bytes:
    """Encode `content` as JSON whose bytes do not depend on the order of keys."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Add the checksum of `content` under the key `sha256`."""
    rest = {key: content[key] for key in content if key != "sha256"}
    return rest | {"sha256": hashlib.sha256(canonical_json(rest)).hexdigest()}


def is_sealed(content: dict[str, Any]) -> bool:
    """Return whether `content` contains its own correct checksum."""
    return bool(content.get("sha256") == sealed(content)["sha256"])


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable_name(path: str) -> str:
    """Return a path as UTF-8 text: unchanged, or as a percent-encoded `file://` URI if it is not valid UTF-8."""
    try:
        path.encode("utf8")
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote(os.fsencode(Path(path).absolute()))
    return path


def from_portable_name(text: str) -> str:
    """Invert `portable_name`."""
    if text.startswith("file://"):
        return os.fsdecode(urllib.parse.unquote_to_bytes(text.removeprefix("file://")))
    return text


def megabytes(count: float) -> str:
    """Format a number of bytes: `812 bytes`, `3.1 MB`, `1.2 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"

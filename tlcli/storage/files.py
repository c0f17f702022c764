"""Files that appear whole or not at all, checksums, locks, and names that survive any encoding. Torch-free."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tlcli.errors import READ_ONLY, ArtifactError, UsageError
from tlcli.storage.urls import Location, Url, lies_in

SLOWEST = 120.0
"""Seconds that a network drive may take to show files that were written on another machine."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary file beside `path` that takes its name, synced to disk, when the block ends.

    An exception leaves `path` as it was and no temporary file behind; an OSError names `path`.
    """
    with naming(path):
        descriptor, name = tempfile.mkstemp(prefix=hidden_prefix(path), suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            give_usual_permissions(Path(name))
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what is told
                Path(name).unlink()
            raise
        sync_directory(path.parent)


def keep(directory: Path, stem: str, suffix: str, content: bytes) -> None:
    """Keep what was costly to make as `stem-<checksum>suffix`, for `kept`; not where the directory is read-only."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(directory / f"{stem}-{_checksum(content)}{suffix}") as file:
            file.write(content)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def kept(directory: Path, stem: str, suffix: str, damaged: Callable[[Path], None]) -> bytes | None:
    """What `keep` wrote, if it is there and its checksum is right; one whose isn't goes to `damaged` and is removed."""
    for path in sorted(directory.glob(f"{stem}-{'[0-9a-f]' * 32}{suffix}")):
        content = path.read_bytes()
        if path.name == f"{stem}-{_checksum(content)}{suffix}":
            return content
        damaged(path)
        with contextlib.suppress(OSError):  # it may be read-only
            path.unlink()
    return None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError from writing `path`, maybe by a temporary file, say `path`, not that file or nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is None or os.fsdecode(error.filename).endswith(".tmp"):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def hidden_prefix(path: Path) -> str:
    """What the names of hidden files beside `path`, and of no other file, begin with; short enough for any name."""
    name = path.name
    if len(name) > 50:
        name = f"{name[:33]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return f".{name}."


def remove_leftovers(path: Path) -> None:
    """Delete what killed writers of `path` left beside it. Only for who keeps other writers away."""
    prefix = hidden_prefix(path)
    for other in path.parent.iterdir():
        if other.name.startswith(prefix) and len(other.name) == len(prefix) + 12 and other.suffix == ".tmp":
            other.unlink(missing_ok=True)


def check_new_file(option: str, path: Path, *, replace: bool, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse a file that can't be written, before anything is computed for it.

    Args:
        option: What it was named by.
        path: The file.
        replace: Whether it may exist.
        inputs: What is read, which is never replaced.

    Raises:
        UsageError: `path` is a folder or one of the inputs, lies in no folder, or exists and `replace` is not set.
    """
    if path.exists() and any(os.path.exists(name) and os.path.samefile(path, name) for name in inputs):  # noqa: PTH110, PTH121
        raise UsageError(f"{option} {path} is what is read here, and would be replaced. Choose another {option}.")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; expected a file.")
    if path.exists() and not replace:
        raise UsageError(f"{path} exists. Choose another {option}, or replace it with --overwrite.")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}. Make it first.")


def check_outside(option: str, path: Location, folder: Location, what: str) -> None:
    """Refuse to write within a folder that is read.

    Raises:
        UsageError: `path` is `folder`, or lies in it.
    """
    if lies_in(path, folder) and (isinstance(folder, Url) or folder.is_dir()):
        raise UsageError(f"{option} {path} lies in {what} {folder}, which is only read. Choose a place outside of it.")


def give_usual_permissions(path: Path) -> None:
    """Temporary files are made private; give this one what the user's umask would."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def sync_directory(directory: Path) -> None:
    """Make renames within `directory` survive a power cut. An OSError names `directory`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with naming(directory):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:  # some network drives can't, and needn't
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path` atomically, for people to read too."""
    with atomic_write(path) as file:
        file.write(as_json(content))


def as_json(content: object) -> bytes:
    """`content` as a JSON file that people can read too."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf8", "backslashreplace") + b"\n"


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        ArtifactError: it is not there, or is not a JSON object; `what` names it in the message.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing, so this is not {what}.", path=path) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); it should describe {what}.", path=path) from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds no JSON object; it should describe {what}.", path=path)
    return content


def read_sealed(path: Path, what: str, *, form: int) -> dict[str, Any]:
    """What `write_json` wrote of `sealed` content of the format `form`, its checksum left out.

    Raises:
        ArtifactError: it is missing, damaged, or of another format; `what` names it in the message.
    """
    content = read_json(path, what)
    if content.get("format") != form:
        raise ArtifactError(f"{path} has format {content.get('format')!r}; this tlcli reads {form}.", path=path)
    if not is_sealed(content):
        raise ArtifactError(
            f"{path} is damaged (its checksum differs); it should describe {what}. Start again elsewhere, or with "
            "--overwrite.",
            path=path,
        )
    del content["sha256"]
    return content


def canonical_json(content: object) -> bytes:
    """The same bytes for the same content, whatever the order of its keys."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with its own checksum under `sha256`."""
    rest = {key: content[key] for key in content if key != "sha256"}
    return rest | {"sha256": hashlib.sha256(canonical_json(rest)).hexdigest()}


def is_sealed(content: dict[str, Any]) -> bool:
    """Whether `content` carries its checksum, and the right one."""
    return bool(content.get("sha256") == sealed(content)["sha256"])


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable_name(path: str) -> str:
    """`path` as text that any table can hold: itself, or a percent-encoded file:// URI if it isn't UTF-8."""
    try:
        path.encode("utf8")
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote(os.fsencode(Path(path).absolute()))
    return path


def from_portable_name(text: str) -> str:
    """The path that `portable_name` wrote as `text`."""
    if text.startswith("file://"):
        return os.fsdecode(urllib.parse.unquote_to_bytes(text.removeprefix("file://")))
    return text


def megabytes(count: float) -> str:
    """A number of bytes for people: `812 bytes`, `3.1 MB`, `1.2 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"

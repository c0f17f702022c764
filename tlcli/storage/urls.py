"""Locations: URLs and paths, parsed and compared by name, and the default cache. Cheap to import for `tlcli --help`."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import MachineError, UsageError

SCHEME = re.compile(r"(?!file://)[A-Za-z][A-Za-z0-9+.-]+://")
SECRETS = re.compile(
    r"[?&]([^=&]*[-_])?(sig|signature|token|accesstoken|auth|pass|password|secret|credential|key|apikey)=",
    re.IGNORECASE,
)
"""Query parameters of web addresses that grant access."""
PASSWORD = re.compile(r"[^/@]*:(?!\d+(/|$))[^?]*@")
"""Start of what follows `://` if it contains a password; the password may contain slashes."""


@dataclass(frozen=True)
class Url:
    """A URL, with the part of `Path`'s interface that both need.

    Raises:
        UsageError: it contains credentials, which would appear in rows and reports; or `..`, which object stores do
            not resolve.
    """

    text: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.text.partition("://")
        object.__setattr__(self, "text", f"{scheme.lower()}://{rest}")
        web = self.scheme.startswith("http")
        # In github://organization:repository@branch neither part is a password.
        secret = "@" in rest.partition("/")[0] or SECRETS.search(rest) if web else PASSWORD.match(rest)
        if secret and self.scheme != "github":
            raise UsageError(
                f"a URL with {scheme}:// contains credentials, which would appear in rows, runs, and reports. Remove "
                "them, and provide them through fsspec's configuration or environment variables."
            )
        if ".." in rest.split("/"):
            raise UsageError(f"{self.text}: .. is not supported in a URL. Give the full name.")

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text  # errors and tables accept it like a path

    def __truediv__(self, path: str) -> Url:
        """Join a relative path, in which `..` leads up to the bucket at most."""
        bucket, _, folder = self.text.partition("://")[2].rstrip("/").partition("/")
        if ".." in path.split("/"):
            path, folder = os.path.normpath(f"/{folder}/{path}").lstrip("/"), ""
        return Url("/".join(filter(None, (f"{self.text.partition('://')[0]}://{bucket}", folder, path))))

    @property
    def scheme(self) -> str:
        """The scheme in lower case, such as `s3`."""
        return self.text.partition("://")[0]

    @property
    def name(self) -> str:
        """The last component; the bucket if there is no other."""
        return self.text.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The name's suffix, including the dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Url:
        """The URL of the enclosing folder."""
        return Url(self.text.rstrip("/").rpartition("/")[0])

    def absolute(self) -> Url:
        """Return the URL itself, which is always absolute."""
        return self


Location = Path | Url
"""A path on this machine or a URL."""


def is_url(name: str) -> bool:
    """Return whether a name is a URL. A `file://` URI counts as a path."""
    return SCHEME.match(name) is not None


def parse_location(name: str) -> Location:
    """Parse a URL, a path, or a percent-encoded `file://` URI, which becomes a path.

    Raises:
        UsageError: see `Url`.
    """
    if is_url(name):
        return Url(name)
    if name.startswith("file://"):
        name = os.fsdecode(urllib.parse.unquote_to_bytes(name.removeprefix("file://")))
    return Path(name)


def absolute(name: str | Location) -> str:
    """Return a URL unchanged, and a path as an absolute path without `.` and `..`."""
    return str(name) if is_url(str(name)) else os.path.abspath(name)  # noqa: PTH100


def lies_in(inner: Location, outer: Location) -> bool:
    """Return whether `inner` equals `outer` or lies below it. URLs are compared by name only."""
    if isinstance(inner, Path) and isinstance(outer, Path):
        inner, outer = inner.resolve(), outer.resolve()
        return inner == outer or outer in inner.parents
    return f"{str(inner).rstrip('/')}/".startswith(f"{str(outer).rstrip('/')}/")


def cache_directory(name: str, option: str = "--cache") -> Path:
    """Parse the path of a cache directory.

    Raises:
        UsageError: it is a URL.
    """
    if is_url(name):
        raise UsageError(
            f"{option} {name}: the cache is memory-mapped and must be a local directory. Only images, runs and outputs "
            "may be at URLs."
        )
    return Path(name)


def default_cache() -> Path:
    """`$TLCLI_CACHE`, else `$XDG_CACHE_HOME/tlcli/features`, else `~/.cache/tlcli/features`.

    Raises:
        UsageError: `$TLCLI_CACHE` is a URL.
        MachineError: there is no home directory.
    """
    if chosen := os.environ.get("TLCLI_CACHE"):
        return cache_directory(chosen, "TLCLI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "tlcli" / "features"
    except RuntimeError as error:
        raise MachineError(
            "there is no home directory for the cache. Set one with --cache DIR or TLCLI_CACHE."
        ) from error

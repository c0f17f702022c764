"""URLs as places of images, runs and outputs. Imports nothing heavy: the command line needs it."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import UsageError

SCHEME = re.compile(r"(?!file://)[A-Za-z][A-Za-z0-9+.-]+://")
SECRETS = re.compile(
    r"[?&]([^=&]*[-_])?(sig|signature|token|accesstoken|auth|pass|password|secret|credential|key|apikey)=",
    re.IGNORECASE,
)
"""What the query of a web address says where it carries a permission."""
PASSWORD = re.compile(r"[^/@]*:(?!\d+(/|$))[^?]*@")
"""How what comes behind `://` begins where it has a password, in which a slash may be."""


@dataclass(frozen=True)
class Url:
    """A place that isn't on this machine, with as much of a `Path` as both are asked for.

    Raises:
        UsageError: there is a password or a permission in it, which would stand in every row and report; or `..`, by
            which object stores don't go up.
    """

    text: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.text.partition("://")
        object.__setattr__(self, "text", f"{scheme.lower()}://{rest}")
        web = self.scheme.startswith("http")
        # In github://organization:repository@branch neither is a password.
        secret = "@" in rest.partition("/")[0] or SECRETS.search(rest) if web else PASSWORD.match(rest)
        if secret and self.scheme != "github":
            raise UsageError(
                f"a URL of {scheme}:// has credentials in it, which rows, runs and reports would repeat. Give them to "
                "fsspec by its configuration or by environment variables, and leave them out here."
            )
        if ".." in rest.split("/"):
            raise UsageError(f"{self.text}: .. doesn't lead up in a URL. Give the whole name.")

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text  # errors and tables take it as they take a path

    def __truediv__(self, path: str) -> Url:
        """What lies behind a path from here, which may lead up by `..` as far as the bucket."""
        bucket, _, folder = self.text.partition("://")[2].rstrip("/").partition("/")
        if ".." in path.split("/"):
            path, folder = os.path.normpath(f"/{folder}/{path}").lstrip("/"), ""
        return Url("/".join(filter(None, (f"{self.text.partition('://')[0]}://{bucket}", folder, path))))

    @property
    def scheme(self) -> str:
        """In small letters, such as `s3`."""
        return self.text.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part, that of a bucket where there is no other."""
        return self.text.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The name's last dot and what comes behind it."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Url:
        """The folder that it lies in."""
        return Url(self.text.rstrip("/").rpartition("/")[0])

    def absolute(self) -> Url:
        """Itself."""
        return self


Location = Path | Url
"""Where something is."""


def is_url(name: str) -> bool:
    """Whether this names a place by its URL; a `file://` URI is a path."""
    return SCHEME.match(name) is not None


def parse_location(name: str) -> Location:
    """What a name stands for: a URL, or a path, percent-encoded behind `file://`.

    Raises:
        UsageError: see `Url`.
    """
    if is_url(name):
        return Url(name)
    if name.startswith("file://"):
        name = os.fsdecode(urllib.parse.unquote_to_bytes(name.removeprefix("file://")))
    return Path(name)


def parse_optional_location(name: str | None) -> Location | None:
    """What a name stands for, where there is one."""
    return None if name is None else parse_location(name)


def absolute(name: str | Location) -> str:
    """A URL as it is; a path from the root on, without dots."""
    return str(name) if is_url(str(name)) else os.path.abspath(name)  # noqa: PTH100


def lies_in(inner: Location, outer: Location) -> bool:
    """Whether a place is another one, or in it, as far as their names tell."""
    if isinstance(inner, Path) and isinstance(outer, Path):
        inner, outer = inner.resolve(), outer.resolve()
        return inner == outer or outer in inner.parents
    return f"{str(inner).rstrip('/')}/".startswith(f"{str(outer).rstrip('/')}/")

"""What a command with a fault may print and leave."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fault_traces import tree
from fault_trials import Outcome

TOLERATED = re.compile(
    r"""(?x)
      /memo(/|$)               # only a speed-up: digests are computed again
    | \.lock$                  # its content is only for messages; the file may stay
    | /\.(run|hub)\.old(/|$)    # what was replaced, and what a finished run does not need:
    | /checkpoint(/|$)         # are removed by the next command
    | /\.unfinished$
    """
)
"""Paths of operations whose failure does not matter, so that the command may succeed."""


def message_problem(outcome: Outcome, folder: Path) -> str | None:
    """Check that a failed command printed one message that names a path below `folder`; return what is wrong."""
    messages = [line for line in outcome.output.splitlines() if line.startswith("environment: ")]
    if "Traceback" in outcome.output or "Exception ignored" in outcome.output:
        return "a traceback"
    if len(messages) != 1 or len(messages[0]) > 400:
        return f"{len(messages)} messages"
    if str(folder) not in messages[0]:
        return f"no path below {folder}"
    return None


def leftovers(folder: Path) -> list[str]:
    """List what no finished command may leave: temporary files, unfinished or replaced runs, checkpoints, journals."""
    known = re.compile(r"\.tmp$|\.partial$|\.unfinished$|/\.(run|hub)\.(new|old)$|/checkpoint$")
    # Temporary files of a cache.json or an engine that a kill interrupted are left to `cache prune`.
    allowed = re.compile(r"/\.(cache\.json|(prefix|overview)-.*)\.\w{8}\.tmp$")
    below = (path.removeprefix(str(folder)) for path in tree(folder))
    return [path for path in below if known.search(path) and not allowed.search(path)]


def digest_of(folder: Path) -> str:
    """Hash names, bytes and modification times of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()

"""Trials: a command, a fault at one of its operations, what must hold then, and the next command.

An operation is a line of the trace that `interpose.c` writes: name, bytes, path, other path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

NOTHING, KILL, TEAR, FULL, BROKEN, READ_ONLY = range(6)
NAMES = ("nothing", "SIGKILL", "SIGKILL half-way", "ENOSPC from there on", "EIO")
KILLED = -9
DISK, DONE, SOME_FAILED = 5, 0, 3
NETWORK = ("--backbone", "lenet5", "--weights", "none", "--workers", "1", "--seed", "1")
QUICK = (*NETWORK, "--engine", "torch")
TAIL = ("--freeze", "3", "--epochs", "1", "--batch-size", "4", "--augment", "none")
"""What most trials ask for: a small network with random weights, cut at its third layer."""
ANSWER_LIMIT = 180
"""Seconds to wait for a server."""

Tree = dict[str, int | None]
"""Sizes of files, by path; None for folders."""


class Operation(NamedTuple):
    """One line of a trace."""

    name: str
    bytes: int
    path: str
    other: str


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    trace: list[Operation]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command whose every operation is a place for a fault.

    `{}` in arguments is the trial's folder.
    """

    name: str
    arguments: Sequence[str]
    again: Sequence[str]
    """The next command, after a crash."""
    start: Path
    """What lies in the folder at the beginning."""
    result: Callable[[Path], Any]
    """What is compared with that of an uninterrupted command."""
    held: Callable[[Path], None] = lambda _: None
    """What must hold between the crash and the next command."""
    code: int = DONE
    """Of the uninterrupted command."""


class Server:
    """A `fault_server.py` that runs commands, one after the other."""

    def __init__(self, library: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | threads | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("fault_server.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        self._folder = folder
        self._numbers = count()
        assert self._answer() == "ready\n"

    def run(self, arguments: Sequence[str], root: Path, *, kind: int = NOTHING, at: int = -1, flock: int = 0) -> Ended:
        """Run a command with a fault below `root`."""
        number = next(self._numbers)
        output, trace = (self._folder / f"{what}-{id(self)}-{number}" for what in ("output", "trace"))
        order = {
            "arguments": [argument.replace("{}", str(root)) for argument in arguments],
            "root": str(root),
            "kind": kind,
            "at": at,
            "flock": flock,
            "output": str(output),
            "trace": str(trace),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        code = json.loads(self._answer())
        lines = [line.split("\t") for line in trace.read_text(errors="surrogateescape").splitlines()]
        ended = Ended(
            code=code,
            output=output.read_text(errors="replace"),
            trace=[Operation(name, int(size), path, other) for name, size, path, other in lines],
        )
        output.unlink()
        trace.unlink()
        return ended

    def _answer(self) -> str:
        assert select.select([self._process.stdout], [], [], ANSWER_LIMIT)[0], "the fault server hangs"
        line = self._process.stdout.readline()
        assert line, "the fault server died"
        return line

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Laboratory:
    """Servers, and room for trials."""

    servers: Sequence[Server]
    room: Path

    def __post_init__(self) -> None:
        self._numbers = count()
        self._free: SimpleQueue[Server] = SimpleQueue()
        for server in self.servers:
            self._free.put(server)

    @contextlib.contextmanager
    def bench(self, start: Path) -> Iterator[tuple[Server, Path]]:
        """A server that is free, and a fresh copy of a folder."""
        server = self._free.get()
        folder = self.room / f"trial-{next(self._numbers)}"
        try:
            shutil.copytree(start, folder)
            yield server, folder
            shutil.rmtree(folder)  # a trial that failed stays, for a look
        finally:
            self._free.put(server)

    def each(self, trial: Callable[[Any], str | None], todo: Sequence[Any]) -> list[str]:
        """Do trials, as many at once as there are servers, and give what was wrong with them."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            return [problem for problem in pool.map(trial, todo) if problem]


def tree(folder: Path) -> Tree:
    """All that lies below a folder."""
    return {str(path): None if path.is_dir() else path.stat().st_size for path in sorted(folder.rglob("*"))}


def replay(before: Tree, trace: Sequence[Operation]) -> Tree:
    """What the operations of a trace make of a tree. Equal to what is there only if none was missed."""
    found = dict(before)
    for operation in trace:
        path, other = operation.path, operation.other
        match operation.name:
            case "create":
                found[path] = 0
            case "mkdir":
                if path not in found:
                    found[path] = None
            case "write":
                found[path] = (found[path] or 0) + operation.bytes
            case "truncate":
                found[path] = operation.bytes
            case "unlink" | "rmdir":
                found.pop(path, None)
            case "rename":
                moved = [name for name in found if name == path or name.startswith(f"{path}/")]
                found = {name: size for name, size in found.items() if name != other} | {
                    other + name.removeprefix(path): found[name] for name in moved
                }
                for name in moved:
                    found.pop(name)
    return found


def unsafe_renames(trace: Sequence[Operation]) -> list[str]:
    """Renames of what was not synced since it was written, or whose folder isn't synced afterwards: a power cut may
    leave them empty, or undo them."""
    problems, unsynced = [], set()
    for number, operation in enumerate(trace):
        if operation.name == "write":
            unsynced.add(operation.path)
        elif operation.name == "sync":
            unsynced.discard(operation.path)
        elif operation.name == "rename":
            if any(path == operation.path or path.startswith(f"{operation.path}/") for path in unsynced):
                problems.append(f"{operation.path} is renamed before it is synced")
            folder = os.path.dirname(operation.other)  # noqa: PTH120
            later = {(after.name, after.path) for after in trace[number:]}
            if ("sync", folder) not in later:
                problems.append(f"{folder} is not synced after {operation.other} was renamed")
    return problems


def faults_of(trace: Sequence[Operation], *, everything: bool) -> list[tuple[int, int]]:
    """Fault and operation of each trial: SIGKILL before each one and half-way through each write; ENOSPC and EIO at
    each, or, unless `everything` is asked for, one of them by turns."""
    trials = []
    for number, operation in enumerate(trace):
        trials.append((KILL, number))
        if operation.name == "write" and operation.bytes > 1:
            trials.append((TEAR, number))
        no_room = operation.name not in {"unlink", "rmdir", "truncate"}  # these free some
        if no_room and (everything or number % 2):
            trials.append((FULL, number))
        if everything or not no_room or not number % 2:
            trials.append((BROKEN, number))
    return trials


SPARED = re.compile(
    r"""(?x)
      /memo(/|$)               # digests are forgotten, and the images read again
    | \.lock$                  # who holds a lock is said to people only; a lock's file may stay
    | /\.(run|hub)\.old(/|$)    # what was replaced, and what a finished run needs no more,
    | /checkpoint(/|$)         # are removed by the next command
    | /\.unfinished$
    """
)
"""Paths of operations whose failure does not matter, so that the command may end well."""


def one_message(ended: Ended, folder: Path) -> str | None:
    """What is wrong with how a command that failed below a folder says so, and where."""
    said = [line for line in ended.output.splitlines() if line.startswith("environment: ")]
    if "Traceback" in ended.output or "Exception ignored" in ended.output:
        return "a traceback"
    if len(said) != 1 or len(said[0]) > 400:
        return f"{len(said)} messages"
    if str(folder) not in said[0]:
        return f"nothing of {folder}"
    return None


def litter(folder: Path) -> list[str]:
    """What no finished command should leave: temporary files, unfinished or replaced runs, checkpoints, journals."""
    known = re.compile(r"\.tmp$|\.partial$|\.unfinished$|/\.(run|hub)\.(new|old)$|/checkpoint$")
    # One that is killed while cache.json or an export is written leaves its temporary file to `cache prune`.
    mine = re.compile(r"/\.(cache\.json|(prefix|overview)-.*)\.\w{8}\.tmp$")
    below = (path.removeprefix(str(folder)) for path in tree(folder))
    return [path for path in below if known.search(path) and not mine.search(path)]


def digest_of(folder: Path) -> str:
    """Of names, bytes and times of change of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()

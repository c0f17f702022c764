"""Fault-injection trials: run a command with a fault at one of its operations, check the state, run the next command.

An operation is a line of the trace that `interpose.c` writes: name, bytes, path, other path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest

NOTHING, KILL, TEAR, FULL, BROKEN, READ_ONLY = range(6)
FAULT_NAMES = ("nothing", "SIGKILL", "SIGKILL halfway", "ENOSPC from there on", "EIO")
KILLED = -9
DISK, DONE, SOME_FAILED = 5, 0, 3
NETWORK = ("--backbone", "lenet5", "--weights", "none", "--workers", "1", "--seed", "1")
QUICK = (*NETWORK, "--engine", "torch")
TAIL = ("--freeze", "3", "--epochs", "1", "--batch-size", "4", "--augment", "none")
"""Options of most trials: a small network with random weights, cut at its third layer."""
PARTS = ("sample", *(pytest.param(number, marks=pytest.mark.slow, id=f"rest-{number + 1}") for number in range(2)))
"""Trials are divided into a sample for `make test`, and the rest, in two tests for two worker processes."""
SAMPLE_SIZE = 4
"""Trials in a sample."""
ANSWER_LIMIT = 180
"""Seconds to wait for an answer of a server."""

Tree = dict[str, int | None]
"""Size of each file by path; None for folders."""


class Operation(NamedTuple):
    """One line of a trace."""

    name: str
    bytes: int
    path: str
    other: str


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `code` is negative if a signal killed it."""

    code: int
    output: str
    trace: list[Operation]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command that is run with a fault at each of its operations.

    `{}` in arguments stands for the trial's folder.
    """

    name: str
    arguments: Sequence[str]
    again: Sequence[str]
    """The command to run after a crash."""
    start: Path
    """Folder that is copied to the trial's folder first."""
    result: Callable[[Path], Any]
    """Return what must equal the result of an uninterrupted command."""
    held: Callable[[Path], None] = lambda _: None
    """Assert what must hold between the crash and the next command."""
    code: int = DONE
    """Exit code of the uninterrupted command."""


class Server:
    """A `fault_server.py` process, which runs one command at a time."""

    def __init__(self, library: Path, folder: Path, exports: Path) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | threads | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).with_name("fault_server.py")),
                str(folder),
                str(exports),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        self._folder = folder
        self._numbers = count()

    def run(
        self, arguments: Sequence[str], root: Path, *, kind: int = NOTHING, at: int = -1, flock: int = 0
    ) -> Outcome:
        """Run a command, with a fault at operation `at` below `root`."""
        number = next(self._numbers)
        output, trace = (self._folder / f"{what}-{id(self)}-{number}" for what in ("output", "trace"))
        request = {
            "arguments": [argument.replace("{}", str(root)) for argument in arguments],
            "root": str(root),
            "kind": kind,
            "at": at,
            "flock": flock,
            "output": str(output),
            "trace": str(trace),
        }
        if number == 0:
            assert self._answer() == "ready\n"
        self._process.stdin.write(json.dumps(request) + "\n")
        code = json.loads(self._answer())
        lines = [line.split("\t") for line in trace.read_text(errors="surrogateescape").splitlines()]
        outcome = Outcome(
            code=code,
            output=output.read_text(errors="replace"),
            trace=[Operation(name, int(size), path, other) for name, size, path, other in lines],
        )
        output.unlink()
        trace.unlink()
        return outcome

    def _answer(self) -> str:
        assert select.select([self._process.stdout], [], [], ANSWER_LIMIT)[0], "the fault server does not answer"
        line = self._process.stdout.readline()
        assert line, "the fault server died"
        return line

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@dataclass
class TrialRunner:
    """Runs trials on servers, each in a new folder below `root`."""

    servers: Sequence[Server]
    root: Path
    counts: Counter[str]

    def __post_init__(self) -> None:
        self._numbers = count()
        self._free: SimpleQueue[Server] = SimpleQueue()
        for server in self.servers:
            self._free.put(server)

    @contextlib.contextmanager
    def trial(self, start: Path) -> Iterator[tuple[Server, Path]]:
        """Yield an idle server and a new folder that is a copy of `start`."""
        server = self._free.get()
        folder = self.root / f"trial-{next(self._numbers)}"
        try:
            shutil.copytree(start, folder)
            yield server, folder
            shutil.rmtree(folder)  # the folder of a failed trial is kept
        finally:
            self._free.put(server)

    def run_all(self, trial: Callable[[Any], str | None], parameters: Sequence[Any]) -> list[str]:
        """Run a trial with each parameter, in parallel on the servers, and return the problems found."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            return [problem for problem in pool.map(trial, parameters) if problem]


def tree(folder: Path) -> Tree:
    """List everything below a folder."""
    return {str(path): None if path.is_dir() else path.stat().st_size for path in sorted(folder.rglob("*"))}


def replay(before: Tree, trace: Sequence[Operation]) -> Tree:
    """Apply the operations of a trace to a tree. The result equals the real tree only if the trace missed none."""
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
    """Return renames that are not durable.

    A file renamed before it is synced may be empty after a power cut; without a sync of the folder afterwards, the
    rename may be undone.
    """
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
    """Return fault and operation of each trial.

    With `everything`, SIGKILL comes before each operation and halfway through each write, and each operation fails
    with ENOSPC and with EIO. Otherwise trials that repeat another one are left out:

    - SIGKILL after a sync leaves the same files as SIGKILL before it.
    - Errors alternate between ENOSPC and EIO.
    - The first file that is published in a folder gets all faults. Each later one, which the same code writes, gets
      one SIGKILL and one error, at the next step in turn.
    """
    steps = {} if everything else later_publications(trace)
    trials, choices = [], defaultdict(list)
    for number, operation in enumerate(trace):
        kills = [(KILL, number)] if everything or not number or trace[number - 1].name != "sync" else []
        if operation.name == "write" and operation.bytes > 1:
            kills.append((TEAR, number))
        errors = [(FULL, number), (BROKEN, number)]
        if operation.name in {"unlink", "rmdir", "truncate"}:  # these free space
            errors = errors[1:]
        if not everything:
            errors = [errors[(number + 1) % len(errors)]]
        for kind, found in (("kill", kills), ("error", errors)):
            (choices[kind, *steps[number]] if number in steps else trials).extend(found)
    for (_, _, turn), found in choices.items():
        trials.append(found[turn % len(found)])
    return sorted(trials, key=lambda trial: trial[1])


def later_publications(trace: Sequence[Operation]) -> dict[int, tuple[str, int]]:
    """Find the operations that publish a file in a folder in which another file was published before.

    Returns:
        Folder and turn (1 for the second file of the folder) by the number of the operation.
    """
    turns: Counter[str] = Counter()
    found = {}
    for start, operation in enumerate(trace):
        if operation.name != "create" or not operation.path.endswith(".tmp"):
            continue
        folder = os.path.dirname(operation.path)  # noqa: PTH120
        steps = [number for number in range(start, len(trace)) if trace[number].path == operation.path]
        rest = range(steps[-1], len(trace))
        steps += [number for number in rest if (trace[number].name, trace[number].path) == ("sync", folder)][:1]
        if turns[folder]:
            found |= dict.fromkeys(steps, (folder, turns[folder]))
        turns[folder] += 1
    return found


def part_of(trials: Sequence[Any], part: str | int) -> Sequence[Any]:
    """Return one of the parts in `PARTS` of all trials."""
    sample = set(random.Random(0).sample(range(len(trials)), min(SAMPLE_SIZE, len(trials))))
    if part == "sample":
        return [trials[number] for number in sorted(sample)]
    rest = [trial for number, trial in enumerate(trials) if number not in sample]
    return rest[part::2]


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

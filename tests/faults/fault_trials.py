"""Fault-injection trials: run a command with a fault at one of its operations, check the state, run the next command.

An operation is a line of the trace that `interpose.c` writes: name, bytes, path, other path.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import subprocess
import sys
from collections import Counter
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


def part_of(trials: Sequence[Any], part: str | int) -> Sequence[Any]:
    """Return one of the parts in `PARTS` of all trials."""
    sample = set(random.Random(0).sample(range(len(trials)), min(SAMPLE_SIZE, len(trials))))
    if part == "sample":
        return [trials[number] for number in sorted(sample)]
    rest = [trial for number, trial in enumerate(trials) if number not in sample]
    return rest[part::2]

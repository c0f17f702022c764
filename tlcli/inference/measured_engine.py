"""Measure an engine in a process of its own, whose start-up time and peak memory are then those of this engine.

The process reads one JSON object per line from standard input, and answers with one: first the job, then commands. It
ends with its standard input. The main process does not import torch.

Shapes: N images, B of them in a batch, k classes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.engines.onnx_session import EXPORT_ENGINES
from tlcli.errors import TlcliError, UsageError, from_os_error, out_of_memory
from tlcli.images.batch import Floats, Pixels
from tlcli.inference.model import Model, open_model
from tlcli.processes import cores
from tlcli.progress import Silent
from tlcli.runs.run import load_run

TIMED_IMAGES = 64
"""Images that are predicted again and again: few, so that they hardly count as the engine's memory."""
WARM_UP_IMAGES = 3
WARM_UP_SECONDS = 0.2
REPLY_LIMIT = 600.0
"""Seconds to wait for an answer before the process counts as hanging: torch starts slowly on a busy machine."""

_CODE = "import sys; sys.path[:] = {path!r}; from tlcli.inference.measured_engine import measure; measure()"


class UnmeasurableError(Exception):
    """An engine cannot run the network; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class EngineJob:
    """What a process measures."""

    run: str
    """The run's directory."""
    engine: str
    """`onnx`, `openvino` or `torch`."""
    precision: str
    """`fp32`, `bf16` or `fp16`; other engines than torch run in fp32."""
    device: str
    """`cpu`, `cuda`, `cuda:1` or `mps`."""
    pixels: str
    """A .npy file, uint8 [N, H, W, C]."""


class EngineProcess:
    """A process that measures an engine. Use it as a context manager; leaving it ends the process.

    Args:
        job: What to measure.

    Raises:
        UnmeasurableError: The engine cannot run the network.
    """

    def __init__(self, job: EngineJob) -> None:
        started = time.monotonic()
        # -I ignores the working directory and PYTHON* variables; the process gets this process's sys.path.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.threads = int(self._ask(asdict(job))["threads"])
            """Threads for many images."""
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - started
        """Seconds from the start of the process to the prediction of the first image."""

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Predict some images whose times do not count."""
        self._ask({"do": "warm up"})

    def latencies(self, seconds: float) -> list[float]:
        """Return the milliseconds of single images, one after the other, on one core or on a GPU."""
        found: list[float] = self._ask({"do": "latencies", "seconds": seconds})["milliseconds"]
        return found

    def images_per_second(self, seconds: float) -> float:
        """Return the throughput on all cores or on a GPU, in batches as predict makes them."""
        return float(self._ask({"do": "throughput", "seconds": seconds})["images_per_second"])

    def peak_memory(self) -> int:
        """Return the peak resident memory of the process so far, in bytes."""
        return int(self._ask({"do": "memory"})["bytes"])

    def logits(self, folder: Path) -> Floats:
        """Predict all images, and return their logits, float32 [N, k]; `folder` is for temporary files."""
        file = folder / f"{self._process.pid}.npy"
        self._ask({"do": "logits", "file": str(file)})
        found: Floats = np.load(file)
        return found

    def close(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], REPLY_LIMIT)[0]:
                raise UnmeasurableError(f"it did not answer within {REPLY_LIMIT:g} s")
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            self._process.kill()
            code = self._process.wait()
            ended = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise UnmeasurableError(f"its process crashed ({ended})") from error
        if "error" in answer:
            raise UnmeasurableError(answer["error"])
        return answer


def measure() -> None:
    """Run the process: read commands from standard input, and write answers to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # libraries may print
    engine: _Engine | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any]
        try:
            if engine is None:
                engine = _Engine(EngineJob(**command))
                answer = {"threads": engine.parallel}
            else:
                answer = engine.answer(command)
        except Exception as error:  # noqa: BLE001 - whatever a library raises, other engines are measured
            answer = {"error": _reason(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _reason(error: Exception) -> str:
    if isinstance(error, TlcliError):
        return error.message
    if isinstance(error, OSError) and error.errno is not None:
        return from_os_error(error).message
    if out_of_memory(error):
        return "memory ran out"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _Engine:
    """The engine in its process: it has predicted one image once it is constructed."""

    def __init__(self, job: EngineJob) -> None:
        self._pixels: Pixels = np.load(job.pixels, mmap_mode="r")
        self._timed = np.array(self._pixels[:TIMED_IMAGES])
        self._torch_on_cpu = job.engine == "torch" and job.device == "cpu"
        self._model = _open(job)
        self._batch_size = self._model.batch_size
        self.parallel = cores() if job.device == "cpu" else 1
        if self._torch_on_cpu:
            import torch

            self.parallel = torch.get_num_threads()
        next(self._single_images(1))

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command."""
        match command["do"]:
            case "warm up":
                list(self._single_images(WARM_UP_IMAGES))
                self._throughput(WARM_UP_SECONDS)
                return {}
            case "latencies":
                end = time.monotonic() + command["seconds"]
                found = []
                for milliseconds in self._single_images(None):
                    found.append(milliseconds)
                    if time.monotonic() >= end:
                        break
                return {"milliseconds": found}
            case "throughput":
                return {"images_per_second": self._throughput(command["seconds"])}
            case "memory":
                return {"bytes": peak_memory()}
            case _:
                size = self._batch_size
                batches = (np.array(self._pixels[at : at + size]) for at in range(0, len(self._pixels), size))
                np.save(command["file"], np.concatenate([outputs.logits for outputs in self._model.map(batches)]))
                return {}

    def _single_images(self, number: int | None) -> Iterator[float]:
        """Predict `number` single images, or images without end, on one core; yield the milliseconds of each."""
        self._model.batch_size = 1  # torch pads smaller batches
        if self._torch_on_cpu:
            import torch

            torch.set_num_threads(1)
        try:
            for index in count() if number is None else range(number):
                image = self._timed[index % len(self._timed)][None]
                started = time.perf_counter()
                self._model.run(image)
                yield 1000 * (time.perf_counter() - started)
        finally:
            self._model.batch_size = self._batch_size
            if self._torch_on_cpu:
                torch.set_num_threads(self.parallel)

    def _throughput(self, seconds: float) -> float:
        """Return images per second while all threads are busy."""
        end = time.monotonic() + seconds
        arrivals: list[float] = []
        # A few batches per thread, however slow. Batches arrive in groups of one per thread: only whole groups count.
        fewest = 2 * self.parallel + 1

        def batches() -> Iterator[Pixels]:
            for start in count(0, self._batch_size):
                if time.monotonic() >= end and len(arrivals) >= fewest:
                    return
                yield self._timed[np.arange(start, start + self._batch_size) % len(self._timed)]

        for _ in self._model.map(batches()):
            arrivals.append(time.perf_counter())
        # The last batches arrive while threads become idle.
        busy = arrivals[: len(arrivals) - self.parallel]
        groups = (len(busy) - 1) // self.parallel
        counted = groups * self.parallel
        return counted * self._batch_size / (busy[-1] - busy[-1 - counted])


def _open(job: EngineJob) -> Model:
    run = load_run(Path(job.run))
    if job.engine in EXPORT_ENGINES:
        return open_model(run, device=job.device, engine=job.engine, batch_size=None, report=Silent())
    from tlcli.inference.torch_model import TorchModel

    model = TorchModel(run, job.device, None, Silent(), precision=job.precision)
    if f", {job.precision}, " not in model.name:
        raise UsageError(f"features of this network in {job.precision} differ too much from those in fp32")
    return model


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    try:  # getrusage also counts the memory of the process that started this one
        fields = Path("/proc/self/status").read_text().split()
        return int(fields[fields.index("VmHWM:") + 1]) * 1024
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

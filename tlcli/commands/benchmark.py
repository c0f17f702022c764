"""`tlcli benchmark`: measure a run in every engine and precision that this machine can run."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tlcli.errors import MachineError
from tlcli.images.batch import Floats
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.measured_engine import EngineJob, EngineProcess, UnmeasurableError
from tlcli.inference.measured_images import DecodingSpeed, MeasuredImages, load_measured_images, measure_decoding
from tlcli.inference.model import has_gpu_driver
from tlcli.processes import cores
from tlcli.progress import Reporter, Silent
from tlcli.runs.directory import ONNX_FILE, WEIGHTS_FILE
from tlcli.runs.run import Run, load_run
from tlcli.settings import BenchmarkSettings
from tlcli.storage.files import portable_name

ROUNDS = 5
"""Parts of the time of each engine. The engines take turns, so that other programs slow all of them down."""
PERCENTILES = (50, 90, 99)


@dataclass(kw_only=True)
class MeasuredEngine:
    """An engine with a precision and a device, and what was measured."""

    engine: str
    precision: str
    device: str
    size: int
    """Bytes of the file that it loads."""
    reason: str | None = None
    """Why it cannot run the network; None if it was measured."""
    threads: int = 0
    """Threads for many images; single images use one."""
    start_seconds: float = 0.0
    rounds: list[float] = field(default_factory=list)
    """Images per second in each round."""
    milliseconds: list[float] = field(default_factory=list)
    """Of single images."""
    peak_memory: int = 0
    """Bytes."""
    logits: Floats | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the engine's entry in the object of `--json`, without accuracy and agreement."""
        name = {"engine": self.engine, "precision": self.precision, "device": self.device}
        if self.reason is not None:
            return name | {"reason": self.reason}
        return name | {
            "threads": self.threads,
            "images_per_second": round(float(np.median(self.rounds)), 2),
            "rounds": [round(value, 2) for value in self.rounds],
            "milliseconds": _percentiles(self.milliseconds),
            "start_seconds": round(self.start_seconds, 3),
            "bytes": self.size,
            "peak_memory_bytes": self.peak_memory,
        }


def benchmark(
    settings: BenchmarkSettings, report: Reporter | None = None, *, stdin: IO[bytes] | None = None
) -> dict[str, Any]:
    """Measure a run in all engines, each in a process of its own.

    Args:
        settings: The run, the images, and the engines.
        report: Receives progress and warnings.
        stdin: The file to read a list of images from; None is standard input.

    Returns:
        `engines`, the fastest first, `unavailable` with the reason of each, `decoding` (None without image files),
        `reference` (the engine that others are compared with), and counts of the images.

    Raises:
        UsageError: A column or filter has no effect.
        DataError: An input does not exist, or it has no images that can be read.
        ArtifactError: The run is damaged.
        MachineError: No engine can run the network.
    """
    report = report or Silent()
    started = time.monotonic()
    run = load_run(settings.run)
    images = load_measured_images(settings, run, stdin or sys.stdin.buffer, report)
    if images.trained_on and images.labels is not None:
        report.warn(
            f"the run was trained on {images.trained_on:,} of these {len(images.pixels):,} images, so the accuracies "
            "are too optimistic."
        )
    decoding = None
    if images.paths:
        with report.task("Decode", 1, "steps") as advance:
            decoding = measure_decoding(run, images.paths, settings.seconds, settings.worker_count())
            advance(1)
    engines = _candidates(run, settings)
    _measure_all(run, engines, images, settings.seconds, report)
    measured = [engine for engine in engines if engine.reason is None]
    if not measured:
        reasons = "; ".join(
            f"{engine.engine} {engine.precision} on {engine.device}: {engine.reason}" for engine in engines
        )
        raise MachineError(f"no engine can run {run.directory}: {reasons}")
    result = _result(settings, run, images, decoding, measured)
    unavailable = [engine.to_json() for engine in engines if engine.reason is not None]
    return result | {"unavailable": unavailable, "seconds": round(time.monotonic() - started, 3)}


def _candidates(run: Run, settings: BenchmarkSettings) -> list[MeasuredEngine]:
    """Return what to measure: first what predict uses on a CPU, which is the reference for the others."""
    cpu = settings.device in {"auto", "cpu"}
    gpus = [settings.device] if settings.device not in {"auto", "cpu"} else []
    if settings.device == "auto" and has_gpu_driver():
        gpus = ["cuda"]
    exported = ONNX_FILE in run.info["files"]
    pairs = [("onnx", "fp32", "cpu"), ("openvino", "fp32", "cpu")] * cpu
    in_torch = [("torch", precision, "cpu") for precision in ("fp32", "bf16")] * cpu
    in_torch += [("torch", precision, gpu) for gpu in gpus for precision in ("fp32", "fp16", "bf16")]
    in_torch.sort(key=lambda one: (one[2] != "cpu", one[1] != run.info["precision"]))
    pairs = [*pairs, *in_torch] if exported else [*in_torch, *pairs]
    engines = []
    for engine, precision, device in pairs:
        if settings.engine and engine not in settings.engine:
            continue
        name = WEIGHTS_FILE if engine == "torch" else ONNX_FILE
        reason = None
        if name not in run.info["files"]:
            reason = f"the run has no {ONNX_FILE}: it was trained with --engine torch or in bf16"
        elif precision != "fp32" and run.layer == 0:
            reason = "lower precisions are for frozen layers, and this run has none"
        size = (run.directory / name).stat().st_size if name in run.info["files"] else 0
        engines.append(MeasuredEngine(engine=engine, precision=precision, device=device, size=size, reason=reason))
    return engines


def _measure_all(
    run: Run, engines: Sequence[MeasuredEngine], images: MeasuredImages, seconds: float, report: Reporter
) -> None:
    """Start a process for each engine, measure all of them in turns, and predict all images with each."""
    possible = [engine for engine in engines if engine.reason is None]
    with (
        tempfile.TemporaryDirectory(prefix="tlcli-benchmark-") as name,
        ExitStack() as stack,
        report.task("Measure", (ROUNDS + 2) * len(possible), "steps") as advance,
    ):
        folder = Path(name)
        np.save(folder / "pixels.npy", images.pixels)
        running: list[tuple[MeasuredEngine, EngineProcess]] = []
        for engine in possible:
            try:
                process = stack.enter_context(EngineProcess(_job(run, engine, folder / "pixels.npy")))
                process.warm_up()
                running.append((engine, process))
                engine.threads, engine.start_seconds = process.threads, process.start_seconds
            except UnmeasurableError as error:
                engine.reason = str(error)
            advance(1)
        for step in range(ROUNDS + 1):
            for engine, process in running:
                advance(1)
                if engine.reason is not None:
                    continue
                try:
                    if step < ROUNDS:
                        engine.milliseconds += process.latencies(seconds / ROUNDS / 2)
                        engine.rounds.append(process.images_per_second(seconds / ROUNDS / 2))
                    else:
                        engine.peak_memory = process.peak_memory()
                        engine.logits = process.logits(folder)
                except UnmeasurableError as error:
                    engine.reason = str(error)


def _job(run: Run, engine: MeasuredEngine, pixels: Path) -> EngineJob:
    return EngineJob(
        run=str(run.directory),
        engine=engine.engine,
        precision=engine.precision,
        device=engine.device,
        pixels=str(pixels),
    )


def _result(
    settings: BenchmarkSettings,
    run: Run,
    images: MeasuredImages,
    decoding: DecodingSpeed | None,
    measured: Sequence[MeasuredEngine],
) -> dict[str, Any]:
    reference = measured[0]
    entries = [engine.to_json() | _agreement(run, images, engine, reference) for engine in measured]
    labeled = images.labels is not None
    return {
        "run": portable_name(str(settings.run)),
        "backbone": run.info["backbone"],
        "input": list(run.preprocessing.shape),
        "cores": cores(),
        "images": len(images.pixels),
        "source": images.source,
        "labeled": labeled,
        "trained_on": images.trained_on,
        "stored": len(images.stored),
        "failed": len(images.failures),
        "failures": [{"path": portable_name(path), "error": reason} for path, reason in images.failures],
        "decoding": None
        if decoding is None
        else {
            "workers": settings.worker_count(),
            "images_per_second": round(decoding.images_per_second, 2),
            "milliseconds": _percentiles(decoding.milliseconds),
        },
        "reference": {key: entries[0][key] for key in ("engine", "precision", "device")},
        "engines": sorted(entries, key=lambda entry: -float(entry["images_per_second"])),
    }


def _agreement(
    run: Run, images: MeasuredImages, engine: MeasuredEngine, reference: MeasuredEngine
) -> dict[str, float | None]:
    """Compare an engine's predictions with the labels, with those of the reference, and with those that are stored."""
    assert engine.logits is not None
    assert reference.logits is not None
    ours, theirs = engine.logits.argmax(1), reference.logits.argmax(1)
    probabilities, expected = (
        calibrated_probabilities(logits, run.temperature, run.log_prior) for logits in (engine.logits, reference.logits)
    )
    real = images.source != "random pixels"
    stored = [ours[index] == label for index, label in images.stored.items()]
    return {
        "accuracy": None if images.labels is None else float((ours == images.labels).mean()),
        "agreement": float((ours == theirs).mean()) if real else None,
        "max_difference": float(np.abs(probabilities - expected).max()),
        "stored_agreement": float(np.mean(stored)) if stored else None,
    }


def _percentiles(milliseconds: Sequence[float]) -> dict[str, Any]:
    values = np.percentile(milliseconds, PERCENTILES)
    named = {f"p{share}": round(float(value), 3) for share, value in zip(PERCENTILES, values, strict=True)}
    return named | {"images": len(milliseconds)}

"""benchmark: each engine in its own process, on images of the user, of the run, or on random pixels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tlcli.cli.main import run
from tlcli.commands.benchmark import benchmark
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.errors import DataError, MachineError
from tlcli.inference.measured_engine import EngineJob, EngineProcess, UnmeasurableError
from tlcli.settings import (
    BenchmarkSettings,
    CacheSettings,
    ComputeSettings,
    EvaluateSettings,
    FinetuneSettings,
    NetworkSettings,
)


def measure(run_directory, *inputs, report=None, engine=("onnx",), **options):
    settings = BenchmarkSettings(
        run=run_directory, inputs=tuple(map(str, inputs)), engine=engine, seconds=0.1, workers=1, **options
    )
    return benchmark(settings, report)


@pytest.fixture
def job(trained, tmp_path):
    """A job for ONNX Runtime on three images."""
    np.save(tmp_path / "pixels.npy", np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    return EngineJob(
        run=str(trained.run), engine="onnx", precision="fp32", device="cpu", pixels=str(tmp_path / "pixels.npy")
    )


def test_labeled_images_give_the_accuracy_of_evaluate(trained, photos, report):
    result = measure(trained.run, photos, report=report)
    expected = evaluate(EvaluateSettings(run=trained.run, data=photos, compute=ComputeSettings(workers=1)))
    (engine,) = result["engines"]
    assert (result["source"], result["images"], result["labeled"]) == ("input", 45, True)
    assert engine["accuracy"] == pytest.approx(expected["accuracy"])
    assert (engine["agreement"], engine["max_difference"]) == (1, 0)
    assert engine["bytes"] == (trained.run / "model.onnx").stat().st_size
    assert result["decoding"]["images_per_second"] > 0
    assert "trained on 45 of these 45" in report.warnings[0]


def test_percentiles_and_throughput_are_consistent(trained, photos):
    (engine,) = measure(trained.run, photos, images=5)["engines"]
    latency = engine["milliseconds"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert latency["images"] >= len(engine["rounds"]) == 5
    assert min(engine["rounds"]) <= engine["images_per_second"] <= max(engine["rounds"])


@pytest.mark.slow
def test_all_engines_are_compared_with_the_one_of_predict(trained, photos):
    result = measure(trained.run, photos, engine=(), images=20, device="cpu")
    speeds = [engine["images_per_second"] for engine in result["engines"]]
    assert speeds == sorted(speeds, reverse=True)
    found = {(engine["engine"], engine["precision"]): engine for engine in result["engines"]}
    missing = {(engine["engine"], engine["precision"]) for engine in result["unavailable"]}
    assert missing <= {("openvino", "fp32")}
    assert found.keys() | missing == {
        ("onnx", "fp32"),
        ("openvino", "fp32"),
        ("torch", "fp32"),
        ("torch", "bf16"),
    }
    assert result["reference"] == {"engine": "onnx", "precision": "fp32", "device": "cpu"}
    assert found["torch", "fp32"]["max_difference"] < 1e-4 < found["torch", "bf16"]["max_difference"]
    assert found["torch", "fp32"]["agreement"] == 1
    assert found["torch", "fp32"]["peak_memory_bytes"] > 2 * found["onnx", "fp32"]["peak_memory_bytes"]


def test_without_input_the_images_of_the_stored_predictions_are_used(trained):
    result = measure(trained.run, images=30)
    assert (result["source"], result["images"], result["labeled"]) == ("stored predictions", 30, True)
    # They were predicted out of fold, so by other weights.
    assert (result["stored"], result["engines"][0]["stored_agreement"]) == (0, None)


@pytest.mark.slow
def test_a_run_that_held_out_images_reproduces_its_stored_predictions_and_goes_on_without_them(
    photos, tmp_path, report
):
    data = tmp_path / "photos"
    for split, numbers in (("train", range(10)), ("test", range(10, 15))):
        for shape in ("disc", "square", "stripes"):
            (data / split / shape).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / shape / f"{number:02d}.jpg", data / split / shape)
    finetune(
        FinetuneSettings(
            data=data,
            out=tmp_path / "run",
            network=NetworkSettings(size=64),
            cache=CacheSettings(directory=tmp_path / "cache"),
            compute=ComputeSettings(engine="onnx", workers=1),
        )
    )
    result = measure(tmp_path / "run")
    assert (result["images"], result["stored"], result["trained_on"]) == (15, 15, 0)
    assert result["engines"][0]["stored_agreement"] == 1

    shutil.rmtree(data)
    result = measure(tmp_path / "run", report=report)
    assert (result["source"], result["labeled"], result["decoding"]) == ("random pixels", False, None)
    assert (result["engines"][0]["accuracy"], result["engines"][0]["agreement"]) == (None, None)
    assert "random pixels are used" in report.warnings[0]


def test_unlabeled_images_of_which_one_is_broken_end_with_3_and_without_torch(trained, photos, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shutil.copy(photos / "disc/03.jpg", inbox / "a.jpg")
    (inbox / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = ["benchmark", str(trained.run), str(inbox), "--engine", "onnx", "--seconds", "0.1", "--json"]
    code = (
        f"import sys; from tlcli.cli.main import run; code = run({arguments!r}); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert (result["images"], result["failed"], result["labeled"]) == (1, 1, False)
    assert result["failures"][0]["path"] == str(inbox / "b.png")
    assert result["engines"][0]["accuracy"] is None
    assert result["engines"][0]["agreement"] == 1


def test_the_table_names_engines_and_caveats(trained, photos, capfd):
    arguments = ["benchmark", str(trained.run), str(photos), "--engine", "onnx", "--seconds", "0.05", "--images", "9"]
    assert run(arguments) == 0
    output = capfd.readouterr()
    row = next(line for line in output.out.splitlines() if line.startswith("ONNX Runtime, fp32, cpu"))
    assert row.endswith("reference")
    assert "decoding" in output.out
    assert "Images    9 of INPUT, 64 x 64 x 3" in output.err
    assert "p99 is of fewer than 100 images" in output.err


@pytest.mark.slow
def test_an_engine_that_cannot_run_is_left_out_with_the_reason(trained, photos):
    with pytest.raises(
        MachineError, match=r"no engine can run .*torch fp16 on cuda:99: --device cuda:99: this machine"
    ):
        measure(trained.run, photos, engine=("torch",), device="cuda:99", images=2)


def test_images_that_cannot_be_read_are_an_error(trained, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="none of the images can be used"):
        measure(trained.run, tmp_path / "a.png")


def test_memory_is_that_of_the_engine_alone(job):
    ballast = np.ones(400_000_000, np.uint8)
    with EngineProcess(job) as process:
        assert 20e6 < process.peak_memory() < ballast.nbytes


def test_a_crash_is_a_reason(job):
    with EngineProcess(job) as process:
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(UnmeasurableError, match=r"crashed \(signal 9\)"):
            process.latencies(0.1)


def test_a_run_that_changed_is_a_reason(job, trained, tmp_path):
    shutil.copytree(trained.run, tmp_path / "run")
    (tmp_path / "run/model.onnx").write_bytes(b"")
    with pytest.raises(UnmeasurableError, match="checksum differs"):
        EngineProcess(EngineJob(**vars(job) | {"run": str(tmp_path / "run")}))

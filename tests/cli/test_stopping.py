"""Ctrl-C at any moment: it ends within seconds, says how to go on, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TLCLI = [sys.executable, "-m", "tlcli"]
PATIENCE = 5.0
"""Seconds within which everything has ended."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def start(*arguments, **environment):
    """A command as a shell starts it: in a process group of its own, to all of which Ctrl-C goes."""
    return subprocess.Popen(
        [*TLCLI, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | environment,
    )


def group(number):
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if its_group == str(number) and state != "Z":
                found.append(int(entry.name))
    return found


def ended(process):
    """Exit code and what was said; all of its group must be gone in time."""
    started = time.monotonic()
    said = process.communicate(timeout=60)[1].decode()
    while group(process.pid) and time.monotonic() - started < PATIENCE:
        time.sleep(0.05)
    assert not group(process.pid), "processes were left running"
    assert time.monotonic() - started < PATIENCE, "it took too long"
    return process.returncode, said


def wait_for_decoders(process, count=1):
    while len(group(process.pid)) <= count:
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    time.sleep(0.5)  # until they are at work


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_while_decoders_are_busy_with_images_that_take_long(trained, largest, tmp_path, number):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{largest}\n" * 50)
    process = start("predict", trained.run, f"@{listed}", "--out", tmp_path / "rows.csv", "--workers", 2)
    wait_for_decoders(process, 2)
    os.killpg(process.pid, number)
    code, said = ended(process)
    assert code == 128 + number
    assert said.count("stopped. With --out, finished rows are kept: repeat the command with --resume.") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "rows.csv").exists()


def test_a_second_one_ends_it_at_once(trained, largest, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{largest}\n" * 50)
    process = start("predict", trained.run, f"@{listed}", "--workers", 2)
    wait_for_decoders(process, 2)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    code, said = ended(process)
    assert code in {-signal.SIGINT, 128 + signal.SIGINT}
    assert time.monotonic() - started < 2
    assert "Traceback" not in said


SWALLOWING = """
import os, signal, sys, time
from tlcli.cli import main

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

def command(*arguments, **options):
    Finalized()  # what the signal's handler raises is dropped by Python here
    print("going on", flush=True)
    time.sleep(30)

main.app = command
main.main()
"""


def test_what_a_finalizer_swallows_is_raised_again():
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", SWALLOWING, "predict"], capture_output=True, text=True, check=False)
    assert process.returncode == 128 + signal.SIGINT
    assert process.stdout == "going on\n"
    assert "interrupted: stopped. With --out, finished rows are kept" in process.stderr
    assert "Traceback" not in process.stderr
    assert time.monotonic() - started < 15


SIGNALLING = """
import os, signal, sys, time
import torch
from tlcli.engines.onnx_export import export_onnx
from tlcli.exporting.torch_program import trace
from tlcli.images.preprocess import Preprocessing

class Signal(BaseException):
    pass

class Finalized:
    def __del__(self):  # where an exception would be lost
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)

class Signalling(torch.nn.Linear):
    def forward(self, pixels):
        Finalized()
        return super().forward(pixels.mean((2, 3)))

def handler(*_):
    raise Signal

half = (0.5, 0.5, 0.5)
preprocessing = Preprocessing(
    height=8, width=8, channels=3, fit="squash", crop_fraction=1.0, interpolation="bicubic", mean=half, std=half
)
signal.signal(signal.SIGUSR1, handler)
try:
    if sys.argv[1] == "onnx":
        export_onnx(Signalling(3, 2), preprocessing)
    else:
        trace(Signalling(3, 2), preprocessing, with_preprocessing=False)
except Signal:
    os.write(1, b"arrived")
os._exit(0)  # as the command does, whatever the tracing thread is at
"""


@pytest.mark.parametrize("kind", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_torchs_exporters_lose_no_signal(kind):
    done = subprocess.run([sys.executable, "-c", SIGNALLING, kind], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "arrived", "")


@pytest.mark.parametrize(
    "moment", [pytest.param(0.4, marks=pytest.mark.slow), 2.0, pytest.param(4.0, marks=pytest.mark.slow)]
)
def test_at_any_moment_of_a_short_command(photos, tmp_path, moment):
    """While Python starts, while torch is imported, while the network is exported, while the head is fitted."""
    out = ["--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    process = start("finetune", photos, "--size", 64, *out)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGINT)
    code, said = ended(process)
    assert code in {-signal.SIGINT, 128 + signal.SIGINT, 0}
    assert (tmp_path / "run" / "run.json").exists() == (code == 0)
    if code == 128 + signal.SIGINT:
        assert "stopped. Features computed so far are cached" in said
        assert "Traceback" not in said
    again = subprocess.run(
        [*TLCLI, "finetune", str(photos), "--size", "64", *map(str, out), "--overwrite", "--quiet"], check=False
    )
    assert again.returncode == 0

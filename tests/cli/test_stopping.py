"""On Ctrl-C, every command ends within seconds, prints how to resume, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TLCLI = [sys.executable, "-m", "tlcli"]
TIMEOUT = 5.0
"""Seconds within which all processes must end."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def start(*arguments, **environment):
    """Start a command as a shell does: in its own process group, which receives Ctrl-C."""
    return subprocess.Popen(
        [*TLCLI, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | environment,
    )


def group(number):
    """Return the running processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group_id = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if group_id == str(number) and state != "Z":
                found.append(int(entry.name))
    return found


def ended(process):
    """Return the exit code and stderr; all processes of the group must end in time."""
    started = time.monotonic()
    output = process.communicate(timeout=60)[1].decode()
    while group(process.pid) and time.monotonic() - started < TIMEOUT:
        time.sleep(0.05)
    assert not group(process.pid), "processes were left running"
    assert time.monotonic() - started < TIMEOUT, "it took too long"
    return process.returncode, output


def wait_for_decoders(process, count=1):
    while len(group(process.pid)) <= count:
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    time.sleep(0.5)  # until they are decoding


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_while_decoding_large_images(trained, largest, tmp_path, number):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{largest}\n" * 50)
    process = start("predict", trained.run, f"@{listed}", "--out", tmp_path / "rows.csv", "--workers", 2)
    wait_for_decoders(process, 2)
    os.killpg(process.pid, number)
    code, output = ended(process)
    assert code == 128 + number
    assert output.count("stopped. With --out, finished rows are kept: repeat the command with --resume.") == 1
    assert "Traceback" not in output
    assert not (tmp_path / "rows.csv").exists()


def test_a_second_signal_ends_the_process_at_once(trained, largest, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{largest}\n" * 50)
    process = start("predict", trained.run, f"@{listed}", "--workers", 2)
    wait_for_decoders(process, 2)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    code, output = ended(process)
    assert code in {-signal.SIGINT, 128 + signal.SIGINT}
    assert time.monotonic() - started < 2
    assert "Traceback" not in output


FINALIZER = """
import os, signal, sys, time
from tlcli.cli import main

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

def command(*arguments, **options):
    Finalized()  # Python drops what the signal handler raises here
    print("continues", flush=True)
    time.sleep(30)

main.app = command
main.main()
"""


def test_exceptions_dropped_in_a_finalizer_are_raised_again():
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", FINALIZER, "predict"], capture_output=True, text=True, check=False)
    assert process.returncode == 128 + signal.SIGINT
    assert process.stdout == "continues\n"
    assert "interrupted: stopped. With --out, finished rows are kept" in process.stderr
    assert "Traceback" not in process.stderr
    assert time.monotonic() - started < 15


EXPORT = """
import os, signal, sys, time
import torch
from tlcli.engines.onnx_export import export_onnx
from tlcli.exporting.network_input import NetworkInput
from tlcli.exporting.torch_program import export_program
from tlcli.images.preprocess import Preprocessing

class Signal(BaseException):
    pass

class Finalized:
    def __del__(self):  # Python drops exceptions here
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
        export_program(Signalling(3, 2), NetworkInput(preprocessing=preprocessing, takes_pixels=False))
except Signal:
    os.write(1, b"arrived")
os._exit(0)  # like the command, without waiting for the tracing thread
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_no_signal_is_lost_while_exporting(kind):
    done = subprocess.run([sys.executable, "-c", EXPORT, kind], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "arrived", "")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.4, 2.0, 4.0])
def test_interrupted_at_any_time_of_a_short_command(photos, tmp_path, moment):
    """During the start of Python, the import of torch, the export of the network, and the fit of the head."""
    network = ["--backbone", "test_efficientnet", "--weights", "none", "--size", 64]
    command = ["finetune", photos, *network, "--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    process = start(*command)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGINT)
    code, output = ended(process)
    assert code in {-signal.SIGINT, 128 + signal.SIGINT, 0}
    assert (tmp_path / "run" / "run.json").exists() == (code == 0)
    if code == 128 + signal.SIGINT:
        assert "stopped. Features computed so far are cached" in output
        assert "Traceback" not in output
    again = subprocess.run([*TLCLI, *map(str, command), "--overwrite", "--quiet"], check=False)
    assert again.returncode == 0

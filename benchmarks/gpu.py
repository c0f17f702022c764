"""Test and measure on a CUDA GPU, within eight minutes, and write a Markdown table whatever happens.

usage: python benchmarks/gpu.py [OUT.md [DATA [TIMM_COMMAND]]]       (default OUT.md: build/gpu.md)

The CUDA tests run first, then each measurement of gpu_measures.py as a process of its own: if one fails, or takes too
long, the table says so, and the next one runs. The table is written after each of them. DATA defaults to photographs
that are made from sample_data. TIMM_COMMAND is run by a shell, for example timm's inference.py with its best flags on
the class folders of DATA; its whole duration counts. Environment: LIMIT=480 are the seconds for everything;
TLCLI_TEST_DEVICE=cpu tries it without a GPU, on few images.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine, table

STARTED, LIMIT = time.monotonic(), float(os.environ.get("LIMIT", "480"))
HERE = Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parent)}
MEASURES = ("decoding", "forward", "cache_features", "tails", "cuda_graph", "compiled", "resizing", "nvjpeg")
"""In the order of their value, because time may be used up."""


def run_limited(command, seconds):
    """Run a command; return what it printed, and why it failed, or None. After some seconds, it is killed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[0], f"stopped after {seconds:.0f} s"
    return printed, f"exit code {process.returncode}" if process.returncode else None


def last_line(lines):
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed([*lines]) if line.strip()), "")


def left():
    """Return the seconds that are left."""
    return LIMIT - (time.monotonic() - STARTED)


def gpu():
    """Return the name of the GPU."""
    try:
        return last_line(run_limited(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], 20)[0].splitlines())
    except OSError:
        return "no GPU"


def stages(data, timm_command, photographs):
    """Yield the name, the command, and the limit in seconds of each stage."""
    yield "CUDA tests", [sys.executable, "-m", "pytest", "-q", "-rf", str(HERE.parent / "tests" / "test_cuda.py")], 150
    measure = [sys.executable, str(HERE / "gpu_measures.py")]
    if data is None:
        yield "photographs", [*measure, "photographs", photographs], 60
    for name in MEASURES:
        yield name, [*measure, name, data or photographs], 75
    if timm_command:
        yield "timm's inference.py", ["bash", "-c", timm_command], 90


def measure(name, command, limit):
    """Run a stage; return its rows: what was measured, images per second, and the duration, or why there is none."""
    if left() < 5:
        return [[name, "not run", "the time was used up"]]
    started = time.monotonic()
    printed, failure = run_limited(command, min(limit, left()))
    seconds = time.monotonic() - started
    lines = printed.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('["')]
    message = last_line(line for line in lines if not line.startswith('["'))
    if failure:
        print(printed[-4000:], file=sys.stderr)
        return [*rows, [name, "failed", f"{failure} {message}".strip()]]
    return rows or [[name, message, f"{seconds:.1f} s"]]


def main(out="build/gpu.md", data=None, timm_command=None):
    with tempfile.TemporaryDirectory() as folder:
        rows, target, header = [], Path(out), f"{gpu()}. {machine()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, command, limit in stages(data, timm_command, f"{folder}/photographs"):
            for row in measure(name, command, limit):
                rows.append(row)
                print(*row, sep="  ", flush=True)
            text = f"{header}\n\n{table(['', 'images per second', 'duration'], rows)}\n"
            target.write_text(text, encoding="utf-8")
    print(f"{target}  {time.monotonic() - STARTED:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])

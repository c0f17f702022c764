"""What the benchmarks share: whole processes that take turns, medians, tables, the machine."""

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TLCLI = [sys.executable, "-m", "tlcli"]


def machine(*packages):
    """Where and with what this runs, and how it was called."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = match[1] if (match := re.search(r"model name\s*: (.*)", info)) else platform.processor()
    versions = [f"{name} {_version(name)}" for name in ("torch", "timm", "onnxruntime", "pillow", *packages)]
    command = " ".join(["python", *(os.path.relpath(word) if Path(word).exists() else word for word in sys.argv)])
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of {model}, Python "
        f"{platform.python_version()}, {', '.join(versions)}. `{command}`"
    )


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def run(command, **environment):
    """Run a command to its end: seconds, and what it printed."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def alternate(contestants, rounds):
    """Seconds of several functions that take turns, by name; each returns its own figure, or None for its duration."""
    taken = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            started = time.monotonic()
            figure = contestant()
            taken[name].append(time.monotonic() - started if figure is None else figure)
    return taken


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def print_ratios(taken, *, base, unit="s"):
    """A table of medians and how many times the base's each is."""
    medians = {name: statistics.median(values) for name, values in taken.items()}
    rows = [
        [
            name,
            f"{medians[name]:.2f} {unit}",
            ", ".join(f"{value:.2f}" for value in values),
            f"{medians[name] / medians[base]:.2f}",
        ]
        for name, values in taken.items()
    ]
    print(table(["", "median", "runs", f"times {base}"], rows))

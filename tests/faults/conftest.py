"""Servers that run commands with faults, the images of the trials, and results made without a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fault_trials import NETWORK, Laboratory, Server

LONG_AGO = 1_600_000_000
"""Seconds since 1970; the memo keeps nothing that was changed just now."""

counts: Counter[str] = Counter()
"""Operations that were enumerated, faults injected, artifacts damaged: for the last lines of the tests' output."""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """`interpose.c`, compiled."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("the fault-injection tests need a C compiler (cc): apt-get install gcc libc6-dev, or set CC")
    found = tmp_path_factory.mktemp("library") / "interpose.so"
    source = Path(__file__).with_name("interpose.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", found, source, "-ldl"], check=True)
    return found


@pytest.fixture(scope="session")
def laboratory(library, tmp_path_factory):
    """One server a core, two at most."""
    folder = tmp_path_factory.mktemp("laboratory")
    servers = [Server(library, folder / f"server-{number}") for number in range(min(2, len(os.sched_getaffinity(0))))]
    (folder / "room").mkdir()
    yield Laboratory(servers, folder / "room")
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def images(draw, tmp_path_factory) -> Path:
    """Two classes, each with four images to train and two to validate on."""
    root = tmp_path_factory.mktemp("data") / "images"
    for number in range(12):
        split, label = "validation" if number % 3 == 2 else "train", ("cat", "dog")[number % 2]
        path = draw(root / split / label / f"{number:02}.png", seed=number, size=(32, 32))
        os.utime(path, (LONG_AGO, LONG_AGO))
    return root


@pytest.fixture(scope="session")
def few(images, tmp_path_factory) -> Path:
    """Of two classes, one image each to train and to validate on."""
    root = tmp_path_factory.mktemp("data") / "few"
    for folder in sorted(images.glob("*/*")):
        (root / folder.relative_to(images)).mkdir(parents=True)
        first = min(folder.iterdir())
        shutil.copy2(first, root / first.relative_to(images))
    return root


@pytest.fixture(scope="session")
def inbox(draw, tmp_path_factory) -> Path:
    """Five images to predict, one of them broken."""
    root = tmp_path_factory.mktemp("data") / "inbox"
    for number in range(5):
        draw(root / f"{number}.png", seed=number, size=(32, 32))
    (root / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.fixture(scope="session")
def empty(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="session")
def made(laboratory, images, tmp_path_factory) -> Path:
    """A folder with `cache` and a run `run` of an all-frozen network, with model.onnx, as a command makes them."""
    folder = tmp_path_factory.mktemp("made")
    command = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK]
    for server in laboratory.servers:  # so that each has imported what it needs
        shutil.rmtree(folder)
        folder.mkdir()
        ended = server.run(command, folder)
        assert ended.code == 0, ended.output
    assert (folder / "run" / "model.onnx").exists()
    return folder


@pytest.fixture(scope="session")
def known_to_timm(laboratory, images, tmp_path_factory) -> Path:
    """A run of a small network that timm has."""
    folder = tmp_path_factory.mktemp("known")
    network = ("--backbone", "test_resnet", "--size", "32", "--weights", "none", "--engine", "torch", "--no-cache")
    command = ["finetune", str(images), "--out", "{}/run", "--workers", "1", *network]
    assert (ended := laboratory.servers[0].run(command, folder)).code == 0, ended.output
    return folder / "run"


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    return counts


def pytest_terminal_summary(terminalreporter: Any):
    if counts:
        said = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        terminalreporter.write_line(f"Faults: {said}")

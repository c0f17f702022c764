"""Fixtures: servers that run commands with faults, the images of the trials, and runs made without a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_trials import NETWORK, Server, TrialRunner

LONG_AGO = 1_600_000_000
"""Modification time of the images: the digest memo ignores files that changed just now."""


counts: Counter[str] = Counter()
"""Operations enumerated, faults injected and files damaged."""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """The compiled `interpose.c`."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("the fault-injection tests need a C compiler (cc): apt-get install gcc libc6-dev, or set CC")
    found = tmp_path_factory.mktemp("library") / "interpose.so"
    source = Path(__file__).with_name("interpose.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", found, source, "-ldl"], check=True)
    return found


@pytest.fixture(scope="session")
def start_server(library, shared_folder, tmp_path_factory) -> Iterator[Callable[[], Server]]:
    """Start servers, which are closed at the end."""
    servers = []
    exports = shared_folder("fault-exports", lambda _: None)

    def start() -> Server:
        servers.append(Server(library, tmp_path_factory.mktemp("server"), exports))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def trials(start_server, tmp_path_factory) -> TrialRunner:
    """Two servers in total if there are two cores: two here, or one in each of two xdist workers."""
    count = min(2, len(os.sched_getaffinity(0))) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return TrialRunner([start_server() for _ in range(max(1, count))], tmp_path_factory.mktemp("trials"), counts)


@pytest.fixture(scope="session")
def two_servers(trials, start_server) -> list[Server]:
    """Two servers, for commands that run at the same time."""
    return trials.servers[:2] if len(trials.servers) > 1 else [*trials.servers, start_server()]


@pytest.fixture(scope="session")
def images(draw, tmp_path_factory) -> Path:
    """Two classes with four training images and two validation images each."""
    root = tmp_path_factory.mktemp("data") / "images"
    for number in range(12):
        split, label = "validation" if number % 3 == 2 else "train", ("cat", "dog")[number % 2]
        path = draw(root / split / label / f"{number:02}.png", seed=number, size=(32, 32))
        os.utime(path, (LONG_AGO, LONG_AGO))
    return root


@pytest.fixture(scope="session")
def few(images, tmp_path_factory) -> Path:
    """Two classes with one training image and one validation image each."""
    root = tmp_path_factory.mktemp("data") / "few"
    for folder in sorted(images.glob("*/*")):
        (root / folder.relative_to(images)).mkdir(parents=True)
        first = min(folder.iterdir())
        shutil.copy2(first, root / first.relative_to(images))
    return root


@pytest.fixture(scope="session")
def inbox(draw, tmp_path_factory) -> Path:
    """Five images to predict, one of them damaged."""
    root = tmp_path_factory.mktemp("data") / "inbox"
    for number in range(5):
        draw(root / f"{number}.png", seed=number, size=(32, 32))
    (root / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.fixture(scope="session")
def empty(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="session")
def made(trials, images, tmp_path_factory) -> Path:
    """A folder with the feature cache `cache` and the run `run`, all frozen, with model.onnx."""
    folder = tmp_path_factory.mktemp("made")
    command = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK]
    outcome = trials.servers[0].run(command, folder)
    assert outcome.code == 0, outcome.output
    assert (folder / "run" / "model.onnx").exists()
    return folder


@pytest.fixture(scope="session")
def timm_run(trials, images, tmp_path_factory) -> Path:
    """A run of a small network of timm."""
    folder = tmp_path_factory.mktemp("known")
    network = ("--backbone", "test_resnet", "--size", "32", "--weights", "none", "--engine", "torch", "--no-cache")
    command = ["finetune", str(images), "--out", "{}/run", "--workers", "1", *network]
    assert (outcome := trials.servers[0].run(command, folder)).code == 0, outcome.output
    return folder / "run"


def pytest_terminal_summary(terminalreporter: Any):
    """Print the counts; under xdist they stay in the workers."""
    if counts:
        summary = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        terminalreporter.write_line(f"Faults: {summary}")

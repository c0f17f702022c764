"""On machines with scarce resources, commands work, or state in one line what is missing and what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tlcli.cli.main import run

TLCLI = [sys.executable, "-m", "tlcli"]
MOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="mounting needs root")


def call(*arguments, before="", limits=None, cwd=None, environment=None):
    """Run a command in its own mount namespace, after the shell commands `before`."""
    command = [*TLCLI, *map(str, arguments)]
    if before:
        command = ["unshare", "--mount", "sh", "-c", before + ' && exec "$@"', "sh", *command]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limits,
        cwd=cwd,
        env=environment or os.environ,
        timeout=300,
    )


def train(photos, folder, **options):
    """Train a small run."""
    out = ["--out", folder / "run", "--cache", folder / "cache"]
    return call("finetune", photos, "--backbone", "lenet5", "--weights", "none", *out, "--json", **options)


def assert_works(done):
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]["failed"] == 0
    assert "Traceback" not in done.stderr


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


@pytest.mark.slow
def test_all_limits_at_once(photos, tmp_path):
    """64 file descriptors, one core, and as root 1 MB of shared memory and temporary files on another file system."""

    def limit():
        few_descriptors()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mounts = f"mount -t tmpfs -o size=1m none /dev/shm && mount -t tmpfs -o size=4m none '{elsewhere}'"
    environment = os.environ | {"TMPDIR": str(elsewhere)}
    assert_works(train(photos, tmp_path, before=mounts if MOUNTS else "", limits=limit, environment=environment))


@pytest.mark.slow
def test_64_file_descriptors(photos, trained, tmp_path):
    done = call("predict", trained.run, photos, "--out", tmp_path / "rows.csv", "--workers", 16, limits=few_descriptors)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 46


@pytest.mark.slow
def test_more_workers_than_file_descriptors_is_an_error_with_a_remedy(photos, trained, tmp_path):
    many = ["--out", tmp_path / "rows.csv", "--workers", 60]
    done = call("predict", trained.run, photos, *many, limits=few_descriptors)
    assert done.returncode in {0, 5}, done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 5:
        assert "use fewer --workers" in done.stderr


@pytest.mark.slow
def test_missing_home_directory(photos, tmp_path):
    """HOME is unset, or cannot be created."""
    bare = {name: value for name, value in os.environ.items() if name not in {"HOME", "XDG_CACHE_HOME", "TLCLI_CACHE"}}
    assert_works(train(photos, tmp_path, environment=bare))
    nowhere = bare | {"HOME": "/proc/nobody"}
    assert_works(train(photos, tmp_path / "other", environment=nowhere))
    command = ["finetune", photos, "--backbone", "lenet5", "--weights", "none", "--out", tmp_path / "third"]
    done = call(*command, environment=nowhere)
    assert done.returncode == 5, done.stderr
    assert "/proc/nobody" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
@needs_mounts
def test_read_only_working_directory(photos, trained, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    lock = f"mount --bind '{here}' '{here}' && mount -o remount,bind,ro '{here}' && cd '{here}'"
    done = call("predict", trained.run, photos, before=lock)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 46
    assert_works(train(photos, tmp_path, before=lock))
    done = call("finetune", photos, "--cache", tmp_path / "cache", before=lock)
    assert done.returncode == 5, done.stderr
    assert "read-only. Choose another location" in done.stderr


@pytest.mark.slow
@needs_mounts
def test_read_only_run_and_cache(photos, trained, tmp_path):
    whole = trained.run.parent
    lock = f"mount --bind '{whole}' '{whole}' && mount -o remount,bind,ro '{whole}'"
    done = call("predict", trained.run, photos, "--out", tmp_path / "rows.csv", before=lock)
    assert done.returncode == 0, done.stderr
    done = call("evaluate", trained.run, photos, "--json", before=lock)
    assert done.returncode == 0, done.stderr
    command = ["finetune", photos, "--size", 64, "--cache", trained.cache, "--out", tmp_path / "run", "--json"]
    done = call(*command, before=lock)
    assert_works(done)
    assert json.loads(done.stdout)["images"]["reused"] == 45
    done = call(*command[:-2], tmp_path / "other", "--size", 80, before=lock)
    assert done.returncode == 5, done.stderr
    assert "--cache DIR" in done.stderr or "read-only" in done.stderr


def test_no_temporary_directory(photos, trained, tmp_path):
    """Only predict writes a temporary file, the list of its inputs."""
    environment = os.environ | {"TMPDIR": "/proc/nowhere"}
    done = call("predict", trained.run, photos, environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=["python", "onednn", "loader"],
)
def test_out_of_memory_is_reported(monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tlcli.commands.layers.layers", fail)
    assert run(["layers", "lenet5"]) == 5
    assert "out of memory. Use a smaller --batch-size" in capsys.readouterr().err


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr("tlcli.commands.layers.layers", fail)
    with pytest.raises(RuntimeError, match="ours"):
        run(["layers", "lenet5"])

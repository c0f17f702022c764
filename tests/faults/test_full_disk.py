"""Run commands on a small disk in memory that is really full: they fail with a message and, given space, resume."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from fault_outcomes import leftovers, message_problem
from fault_trials import DISK, DONE, QUICK, SOME_FAILED, TAIL
from test_crashes import features_in, run_in

SIZES = (4, 12, 20, 28, 96, 240, 400)
"""Sizes of the disk in kB. The larger, the more of a command succeeds."""


@pytest.fixture
def disk(tmp_path):
    """Return `mount(kilobytes)`, which mounts a disk of this size or resizes it, and returns its folder."""
    folder, mounted = tmp_path / "disk", []
    folder.mkdir()

    def mount(kilobytes):
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None:
            pytest.skip("a full disk needs the mount command, which is missing")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a full disk needs to be mounted, which is not permitted here: {done.stderr.strip()}")
        mounted.append(kilobytes)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "what",
    [
        "cache-features",
        "predict",
        pytest.param("finetune-tail", marks=pytest.mark.slow),
        pytest.param("explain", marks=pytest.mark.slow),
    ],
)
def test_full_disk_is_reported_and_with_space_the_command_resumes(trials, disk, empty, made, images, inbox, what):
    command, again, result, usual = {
        "cache-features": (
            ["cache-features", str(images), "--cache", "{}/cache", *QUICK],
            [],
            lambda folder: features_in(folder / "cache"),
            DONE,
        ),
        "finetune-tail": (
            ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *QUICK, *TAIL],
            ["--resume"],
            lambda folder: run_in(folder / "run"),
            DONE,
        ),
        "predict": (
            ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.parquet", "--workers", "1"],
            ["--resume"],
            lambda folder: (folder / "rows.parquet").read_bytes(),
            SOME_FAILED,
        ),
        "explain": (
            ["predict", str(made / "run"), str(inbox), "--explain", "{}/cards", "--workers", "1"],
            [],
            lambda folder: sorted(path.name for path in (folder / "cards").iterdir()),
            SOME_FAILED,
        ),
    }[what]
    with trials.trial(empty) as (server, folder):
        complete = server.run(command, folder)
        assert complete.code == usual
        expected = result(folder)
    failures = 0
    for size in SIZES if what != "predict" else (4, 8, 12):
        place = disk(size)
        outcome = server.run(command, place)
        if outcome.code != usual:
            failures += 1
            assert outcome.code == DISK, outcome.output
            assert message_problem(outcome, place) is None, f"{message_problem(outcome, place)}: {outcome.output}"
            assert "full" in outcome.output or "are free there" in outcome.output
            disk(20_000)
            outcome = server.run([*command, *again], place)
        assert outcome.code == usual, outcome.output
        assert result(place) == expected
        assert leftovers(place) == []
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert failures >= 2

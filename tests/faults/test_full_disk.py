"""A disk that is really full: a small one in memory, on which commands end with a message and, given room, go on."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from fault_trials import DISK, DONE, QUICK, SOME_FAILED, TAIL, litter, one_message
from test_crashes import features_in, run_in

SIZES = (4, 12, 20, 28, 96, 240, 400)
"""Of the disk, in kB; with the last ones more and more of a command succeeds."""


@pytest.fixture
def disk(tmp_path):
    """Make a folder a disk of some kilobytes; again, to change its size."""
    place, mounted = tmp_path / "disk", []
    place.mkdir()

    def mount(kilobytes):
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if shutil.which("mount") is None:
            pytest.skip("a full disk needs mount, which isn't there")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a full disk needs to be mounted, which is not allowed here: {done.stderr.strip()}")
        mounted.append(kilobytes)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("what", ["cache-features", "finetune-tail", "predict", "explain"])
def test_a_full_disk_ends_with_a_message_and_room_lets_it_go_on(laboratory, disk, empty, made, images, inbox, what):
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
    with laboratory.bench(empty) as (server, folder):
        whole = server.run(command, folder)
        assert whole.code == usual
        expected = result(folder)
    failures = 0
    for size in SIZES if what != "predict" else (4, 8, 12):
        place = disk(size)
        ended = server.run(command, place)
        if ended.code != usual:
            failures += 1
            assert ended.code == DISK, ended.output
            assert one_message(ended, place) is None, f"{one_message(ended, place)}: {ended.output}"
            assert "full" in ended.output or "are free there" in ended.output
            disk(20_000)
            ended = server.run([*command, *again], place)
        assert ended.code == usual, ended.output
        assert result(place) == expected
        assert litter(place) == []
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert failures >= 2

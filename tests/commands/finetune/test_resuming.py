"""A run that was killed or interrupted is resumed, and ends like an uninterrupted one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tail_runs import SIZE, lines_of, settings_for

from tlcli.cli.main import run as tlcli
from tlcli.commands.finetune import finetune
from tlcli.errors import ArtifactError
from tlcli.runs.run import load_run
from tlcli.settings import ComputeSettings
from tlcli.settings.augmentation import PRESETS

DRIVER = """
import sys
from tlcli.training.tail import checkpoints
checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
from tlcli.cli.main import main
main()
"""


def start(*arguments):
    """Start tlcli in a new process that saves a checkpoint after each step."""
    command = [sys.executable, "-c", DRIVER, "finetune", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def stop(process, directory, number, how):
    """Send a signal once a checkpoint of at least this number exists; return exit code and messages."""
    while not any(int(path.name[:6]) >= number for path in directory.glob("*.safetensors")):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.002)
    process.send_signal(how)
    messages = process.communicate(timeout=60)[1].decode()
    return process.returncode, messages


@pytest.fixture(scope="module")
def command(photos, cache):
    """Arguments of `finetune` that train a small network for three epochs, without --out."""
    network = ["--backbone", "test_efficientnet", "--weights", "none", "--freeze", "blocks.3", "--engine", "torch"]
    training = ["--augment", "light", "--epochs", "3", "--batch-size", "8"]
    return [photos, *network, *training, "--size", SIZE, "--workers", 1, "--cache", cache]


@pytest.fixture(scope="module")
def complete(command, tmp_path_factory):
    """A run that was not interrupted."""
    run = tmp_path_factory.mktemp("complete") / "run"
    assert tlcli(["finetune", *map(str, command), "--out", str(run), "--quiet"]) == 0
    return run


def resume(command, run, capsys):
    """Finish an interrupted run in this process."""
    assert tlcli(["finetune", *map(str, command), "--out", str(run), "--resume"]) == 0
    assert "Resuming from a checkpoint" in capsys.readouterr().err


def light_settings(photos, run, cache, *, seed=0, **training):
    """Return the settings of `command`, with resume."""
    network = {"backbone": "test_efficientnet", "weights": "none", "seed": seed}
    compute = ComputeSettings(batch_size=8, workers=1, engine="torch")
    changes = {"network": network, "training": training, "augmentation": PRESETS["light"], "compute": compute}
    return settings_for(photos, run, cache, "blocks.3", resume=True, **changes)


def assert_same_run(one, other):
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert lines_of(one) == lines_of(other)
    first, second = load_run(one).info, load_run(other).info
    for name in ("validation", "temperature", "freeze"):
        assert first[name] == second[name]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.slow
def test_killed_repeatedly_the_run_is_the_same(command, complete, tmp_path, capsys):
    run = tmp_path / "run"
    for number in (4, 13):
        code, messages = stop(start(*command, "--out", run, "--resume"), run / "checkpoint", number, signal.SIGKILL)
        assert code == -signal.SIGKILL, messages
        assert not (run / "run.json").exists()
    resume(command, run, capsys)
    assert_same_run(complete, run)


@pytest.mark.slow
def test_a_run_that_continues_from_another_is_resumed(photos, cache, complete, tmp_path, capsys):
    parent = tmp_path / "parent"
    shutil.copytree(complete, parent)
    options = ["--backbone", parent, "--freeze", "blocks.3", "--epochs", "3", "--batch-size", "8", "--engine", "torch"]
    command = [photos, *options, "--augment", "light", "--workers", 1, "--cache", cache]
    assert tlcli(["finetune", *map(str, command), "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    run = tmp_path / "run"
    code, messages = stop(start(*command, "--out", run), run / "checkpoint", 4, signal.SIGKILL)
    assert code == -signal.SIGKILL, messages
    shutil.copytree(run, tmp_path / "other")
    resume(command, run, capsys)
    assert_same_run(tmp_path / "whole", run)

    shutil.rmtree(parent)
    shutil.copytree(tmp_path / "whole", parent)
    assert tlcli(["finetune", *map(str, command), "--out", str(tmp_path / "other"), "--resume"]) == 4
    assert "parent was" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_overwrite_keeps_the_old_run_and_resumes(photos, cache, command, complete, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(complete, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, messages = stop(
        start(*command, "--out", run, "--overwrite"), tmp_path / ".run.new" / "checkpoint", 4, signal.SIGINT
    )
    assert code == 130, messages
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    load_run(run)
    with pytest.raises(ArtifactError, match="seed was 0 and is 3") as raised:
        finetune(light_settings(photos, run, cache, seed=3, epochs=3))
    assert raised.value.exit_code == 4
    resume(command, run, capsys)
    assert_same_run(complete, run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "--resume" in messages


@pytest.mark.slow
def test_resume_of_a_finished_run_returns_it_and_refuses_changes(photos, cache, complete):
    def again(**training):
        return finetune(light_settings(photos, complete, cache, **training))

    before = load_run(complete).info
    assert again(epochs=3)["was_finished"]
    assert load_run(complete).info == before
    for training, message in (
        ({"epochs": 4}, "epochs was 3 and is 4"),
        ({"epochs": 3, "patience": 2}, "patience was None and is 2"),
    ):
        with pytest.raises(ArtifactError, match=message) as raised:
            again(**training)
        assert raised.value.exit_code == 4

"""Checkpoints survive damage to files, and are accepted only by the training that wrote them."""

import pickle
from pathlib import Path

import pytest
import torch

from tlcli.errors import ArtifactError
from tlcli.training.tail.checkpoints import Checkpoints

ORIGIN = {"seed": 0, "epochs": 3, "augmentation": {"mirror": True, "color_shift": [1, 2, 3]}, "views": None}


@pytest.fixture
def open_checkpoints(tmp_path, report):
    """Open the checkpoints of one run."""

    def open_them(*, resume=True, **changes):
        return Checkpoints(tmp_path / "run" / "checkpoint", ORIGIN | changes, resume=resume, report=report)

    (tmp_path / "run").mkdir()
    return open_them


def write(checkpoints, number):
    content = {"number": number, "lines": [{"loss": 0.1 * number}]}
    checkpoints.save_if_due(lambda: (content, tensors(number)), now=True)


def tensors(number):
    return {
        "weights": torch.full((2, 3), float(number)),
        "count": torch.tensor(number),
        "half": torch.tensor([0.1, number], dtype=torch.bfloat16),
    }


def files(tmp_path):
    return sorted((tmp_path / "run" / "checkpoint").glob("*.safetensors"))


def check(found, number):
    content, loaded = found
    assert content == {"number": number, "lines": [{"loss": 0.1 * number}]}
    assert loaded.keys() == tensors(number).keys()
    for name, tensor in tensors(number).items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def scramble_header(path):
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def test_a_saved_checkpoint_is_loaded(open_checkpoints, report):
    assert open_checkpoints().latest() is None
    write(open_checkpoints(), 1)
    check(open_checkpoints().latest(), 1)
    assert not report.warnings


def test_the_newest_counts_and_at_most_two_are_kept(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    for number in range(1, 13):
        write(checkpoints, number)
        assert len(files(tmp_path)) == min(number, 2)
        check(open_checkpoints().latest(), number)


def test_numbers_go_on_after_a_resume(open_checkpoints):
    for number in range(1, 5):
        checkpoints = open_checkpoints()
        checkpoints.latest()
        write(checkpoints, number)
    check(open_checkpoints().latest(), 4)


@pytest.mark.parametrize("damage", [flip, truncate, empty, scramble_header])
def test_a_damaged_newest_costs_only_the_steps_since_the_one_before(open_checkpoints, tmp_path, report, damage):
    checkpoints = open_checkpoints()
    write(checkpoints, 1)
    write(checkpoints, 2)
    damage(files(tmp_path)[-1])
    resumed = open_checkpoints()
    check(resumed.latest(), 1)
    (warning,) = report.warnings
    assert "damaged" in warning
    assert files(tmp_path)[-1].name in warning
    write(resumed, 3)
    check(open_checkpoints().latest(), 3)


def test_training_restarts_if_all_checkpoints_are_damaged(open_checkpoints, tmp_path, report):
    checkpoints = open_checkpoints()
    write(checkpoints, 1)
    write(checkpoints, 2)
    for path in files(tmp_path):
        flip(path)
    assert open_checkpoints().latest() is None
    assert len(report.warnings) == 2


def test_leftovers_of_a_killed_process_are_harmless(open_checkpoints, tmp_path, report):
    checkpoints = open_checkpoints()
    write(checkpoints, 1)
    (path,) = files(tmp_path)
    half = path.read_bytes()[: path.stat().st_size // 2]
    (path.parent / f".000002-{'0' * 32}.safetensors.abc.tmp").write_bytes(half)
    resumed = open_checkpoints()
    check(resumed.latest(), 1)
    write(resumed, 2)
    check(open_checkpoints().latest(), 2)
    assert not report.warnings


def test_a_kill_before_the_origin_was_written_starts_afresh(open_checkpoints, tmp_path):
    (tmp_path / "run" / "checkpoint").mkdir()
    checkpoints = open_checkpoints()
    assert checkpoints.latest() is None
    write(checkpoints, 1)
    check(open_checkpoints().latest(), 1)


def test_a_full_disk_leaves_the_last_checkpoint(open_checkpoints, tmp_path, full_disk):
    checkpoints = open_checkpoints()
    write(checkpoints, 1)
    with full_disk(100), pytest.raises(OSError, match="large"):
        write(checkpoints, 2)
    assert len(list((tmp_path / "run" / "checkpoint").iterdir())) == 2, "the origin and the one that was good"
    check(open_checkpoints().latest(), 1)


def test_changed_settings_are_refused_by_name_with_both_values(open_checkpoints, tmp_path):
    write(open_checkpoints(), 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()}
    with pytest.raises(ArtifactError, match=r"epochs was 3 and is 4; seed was 0 and is 7\.") as raised:
        open_checkpoints(seed=7, epochs=4)
    assert raised.value.exit_code == 4
    assert raised.value.path == str(tmp_path / "run")
    with pytest.raises(ArtifactError, match="images was None and is 'a hash'; seed was 0 and is 7"):
        open_checkpoints(pictures="a hash", seed=7)
    with pytest.raises(ArtifactError, match="balance was None and is True"):
        open_checkpoints(balance=True)
    with pytest.raises(ArtifactError, match=r"augmentation was \{.*'mirror': True.*\} and is None"):
        open_checkpoints(augmentation=None)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()} == before
    check(open_checkpoints().latest(), 1)


def test_checkpoints_of_another_format_are_refused(open_checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("tlcli.training.tail.checkpoints.FORMAT", 1)
    write(open_checkpoints(), 1)
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="format"):
        open_checkpoints()
    assert files(tmp_path)


def test_a_damaged_origin_is_an_error_that_names_it(open_checkpoints, tmp_path):
    write(open_checkpoints(), 1)
    path = tmp_path / "run" / "checkpoint" / "origin.json"
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"origin\.json is damaged"):
        open_checkpoints()


def test_without_resume_existing_checkpoints_are_removed(open_checkpoints):
    write(open_checkpoints(), 1)
    assert open_checkpoints(resume=False, seed=1).latest() is None


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def test_nothing_is_unpickled(open_checkpoints, tmp_path, monkeypatch):
    """A pickle under a checkpoint's name, with the checksum that it should have."""
    import hashlib

    monkeypatch.chdir(tmp_path)
    open_checkpoints()
    data = pickle.dumps(Trap())
    name = f"000001-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    (tmp_path / "run" / "checkpoint" / name).write_bytes(data)
    with pytest.raises(ArtifactError, match="is not a checkpoint of tlcli"):
        open_checkpoints().latest()
    assert not (tmp_path / "unpickled").exists()


def test_tensors_that_share_memory_or_are_strided_are_saved_as_they_look(open_checkpoints):
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    given = {"one": base, "same": base, "strided": base.to(memory_format=torch.channels_last), "part": base[:, 1]}
    open_checkpoints().save_if_due(lambda: ({}, given), now=True)
    _, loaded = open_checkpoints().latest()
    for name, tensor in given.items():
        assert torch.equal(loaded[name], tensor), name


def test_only_due_checkpoints_are_written(open_checkpoints, tmp_path, monkeypatch):
    checkpoints = open_checkpoints()
    checkpoints.save_if_due(lambda: ({}, tensors(1)))
    assert not files(tmp_path), "the first is due after a while"
    monkeypatch.setattr("tlcli.training.tail.checkpoints.EVERY", 0.0)
    monkeypatch.setattr("tlcli.training.tail.checkpoints.SHARE", 1e9)
    eager = open_checkpoints()
    eager.save_if_due(lambda: ({}, tensors(1)))
    eager.save_if_due(lambda: ({}, tensors(2)))
    assert len(files(tmp_path)) == 2

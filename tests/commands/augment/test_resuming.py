"""An interrupted dataset is resumed with the same settings and images only, by one process."""

import os

import pytest
from augmented_datasets import augmented, tree

from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.progress import Silent
from tlcli.settings import ComputeSettings, PathPatterns, TableColumns
from tlcli.settings.augmentation import Augmentation
from tlcli.storage.locks import lock_output


@pytest.mark.slow
def test_a_resumed_dataset_is_identical(split, tmp_path):
    out = tmp_path / "out"
    augmented(split, out, copies=2, compute=ComputeSettings(workers=2))
    whole = tree(out)
    (out / "manifest.csv").unlink()
    for path in [*sorted(out.rglob("*v1.png"))[::2], out / "test" / "cat" / "0.jpg"]:
        path.unlink()
    (out / "train" / "cat" / ".1.jpg.x.tmp").write_bytes(b"half of it")
    kept = out / "train" / "cat" / "0.jpg"
    os.utime(kept, (1e9, 1e9))
    result = augmented(split, out, copies=2, resume=True)
    assert "was_finished" not in result
    assert tree(out) == whole
    assert kept.stat().st_mtime == 1e9, "existing images are not rewritten"
    again = augmented(split, out, copies=2, resume=True)
    assert again["was_finished"]
    assert again["written"] == 35
    assert augmented(split, tmp_path / "fresh", copies=2, resume=True)["written"] == 35
    assert tree(tmp_path / "fresh") == whole


@pytest.mark.slow
def test_two_writers_at_once_are_rejected(split, tmp_path):
    out = tmp_path / "out"
    augmented(split, out)
    (out / "manifest.csv").unlink()
    (out / "train" / "cat" / ".1.jpg.x.tmp").write_bytes(b"half of it")
    before = tree(out)
    with lock_output(out, Silent()):
        for resume in (False, True):
            with pytest.raises(MachineError, match=f"{out} is locked: process {os.getpid()} is writing"):
                augmented(split, out, resume=resume)
        assert tree(out) == before
    assert augmented(split, out, resume=True)["written"] == 26
    with lock_output(out, Silent()):
        assert augmented(split, out, resume=True)["was_finished"]


@pytest.mark.slow
def test_a_finished_dataset_of_other_images_is_rejected(split, tmp_path, draw):
    out = tmp_path / "out"
    augmented(split, out)
    before = tree(out)
    draw(split / "train" / "cat" / "another.jpg", 99)
    with pytest.raises(ArtifactError, match="started with different images"):
        augmented(split, out, resume=True)
    assert tree(out) == before


@pytest.mark.slow
def test_resuming_with_other_settings_or_images_is_rejected(split, tmp_path, draw):
    out = tmp_path / "out"
    augmented(split, out)
    with pytest.raises(UsageError, match="is not empty"):
        augmented(split, out)
    for changes, name in [
        ({"copies": 2}, "copies was 1 and is 2"),
        ({"seed": 4}, "seed was 0 and is 4"),
        ({"augmentation": Augmentation(noise=3)}, "augmentation was"),
    ]:
        with pytest.raises(ArtifactError, match=name):
            augmented(split, out, resume=True, **changes)
    (out / "manifest.csv").unlink()
    before = tree(out)
    draw(split / "train" / "cat" / "new.jpg", 77)
    with pytest.raises(ArtifactError, match="has changed since"):
        augmented(split, out, resume=True)
    assert tree(out) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ArtifactError, match=r"augment\.json is missing"):
        augmented(split, tmp_path / "other", resume=True)


@pytest.mark.slow
def test_resuming_with_other_columns_or_filters_is_rejected(draw, tmp_path):
    lines = ["path,label,kind"]
    for number in range(24):
        name = draw(tmp_path / f"{number}.png", number, size=(30, 20), format="PNG").name
        lines.append(f"{name},{'cat' if number % 2 else 'dog'},{'old' if number % 2 else 'new'}")
    data = tmp_path / "table.csv"
    data.write_text("\n".join(lines))
    kind, unfiltered = TableColumns(label_column="kind"), PathPatterns()
    exclude = PathPatterns(exclude=("23.png",))
    augmented(data, tmp_path / "plain", group_by="none")
    augmented(data, tmp_path / "chosen", columns=kind, filters=exclude, group_by="none")
    for out, changes, expected in [
        ("plain", {"columns": kind}, "different settings: label_column was None and is 'kind'"),
        ("plain", {"filters": exclude}, "exclude was None and is"),
        ("chosen", {"filters": exclude}, "label_column was 'kind' and is None"),
        ("chosen", {"columns": kind, "filters": unfiltered}, "exclude was .* and is None"),
    ]:
        (tmp_path / out / "manifest.csv").unlink(missing_ok=True)
        before = tree(tmp_path / out)
        with pytest.raises(ArtifactError, match=expected):
            augmented(data, tmp_path / out, resume=True, group_by="none", **changes)
        assert tree(tmp_path / out) == before
    again = augmented(data, tmp_path / "chosen", columns=kind, filters=exclude, resume=True, group_by="none")
    assert again["written"] > 23

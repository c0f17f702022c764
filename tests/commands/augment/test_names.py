"""Unusual names of classes and files are kept or rejected."""

import os
import shutil
from collections import Counter

import pytest
from augmented_datasets import augmented, manifest, sha

from tlcli.datasets.dataset import open_dataset
from tlcli.errors import DataError


@pytest.mark.parametrize("label", ["../../evil", "a/b", "..", ".", ".hidden", "/absolute", "x" * 256])
def test_classes_that_cannot_be_folders_are_rejected(table, tmp_path, label):
    data = table(["cat"] * 12 + [label] * 12)
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(DataError, match="cannot be the name of a class folder"):
        augmented(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.slow
def test_unusual_classes_and_names_from_a_table_are_kept(table, tmp_path):
    names = [f"{folder}/same.png" for folder in "abcdefghijkl"]
    names += ["x" * 251 + ".png", "ü" * 125 + ".png", ".hidden.png", "no suffix", "~odd\t'name.PNG", "-v1.png"]
    names += [f"{number}.png" for number in range(6)]
    labels = ["50 % off\tnow"] * 12 + ["日本 & co"] * 12
    data = table(labels, names=names)
    with data.open("a") as file:
        file.write(f'\n"{names[0]}","{labels[0]}",')  # a repeated row
    augmented(data, tmp_path / "out", copies=2, group_by="none")
    made = open_dataset(tmp_path / "out")
    assert made.classes == tuple(sorted(set(labels)))
    sources = Counter(row["source"] for row in manifest(tmp_path / "out") if row["split"] == "train")
    assert set(sources.values()) == {3}
    assert len(made.samples) == len(manifest(tmp_path / "out"))
    assert {row["digest"] for row in manifest(tmp_path / "out")} == {sha(tmp_path / name) for name in names}
    assert len(open_dataset(tmp_path / "out" / "manifest.csv").samples) == len(made.samples)


@pytest.mark.slow
def test_names_that_are_not_utf8(split, tmp_path):
    odd = os.fsdecode(os.fsencode(split / "train" / "cat") + b"/\xff" + b"y" * 250 + b".jpg")
    shutil.copy(split / "train" / "cat" / "0.jpg", odd)
    augmented(split, tmp_path / "out")
    rows = [row for row in manifest(tmp_path / "out") if row["source"].startswith("file://")]
    assert [row["view"] for row in rows] == ["0", "1"]
    assert len(open_dataset(tmp_path / "out" / "manifest.csv").samples) == 28

"""Fixtures: a dataset without problems, a copy of it, and a feature cache."""

import os
import shutil

import pytest
from checked_patterns import CLASSES, pattern, save


def draw_patterns(root):
    for name in CLASSES:
        for seed in range(18):
            split = "train" if seed < 12 else "val" if seed < 15 else "test"
            path = save(pattern(name, seed), root / split / name / f"{seed:02d}.jpg")
            os.utime(path, (1e9, 1e9))  # old enough for the memo of digests to be used


@pytest.fixture(scope="session")
def clean(shared_folder):
    """Three easy classes in three splits, with 12, 3 and 3 images each. Not to be changed: copy them."""
    return shared_folder("patterns", draw_patterns)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "data")
    return tmp_path / "data"

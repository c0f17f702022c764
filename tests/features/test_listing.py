"""Caches are listed, and a disk without room for one is noticed."""

import os

import pytest
from stored_features import CONTENT, SHAPE, fill

from tlcli.errors import MachineError
from tlcli.features.listing import check_space, list_caches, nearest_cache
from tlcli.features.store import FeatureStore


def test_caches_are_listed_last_used_first(tmp_path):
    names = ["a", "b", "c"]
    for count, name in enumerate(names, start=1):
        store = FeatureStore(tmp_path, CONTENT | {"backbone": name}, SHAPE)
        fill(store, range(count))
        fill(store, range(count, 2 * count))
        os.utime(store.directory / "cache.json", (1000 * count, 1000 * count))
    FeatureStore(tmp_path, CONTENT | {"backbone": "a"}, SHAPE)  # uses it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cache.json").write_text("{}")
    (tmp_path / "memo").mkdir()
    listed = list_caches(tmp_path)
    assert [(listing.ingredients["backbone"], listing.images) for listing in listed] == [("a", 2), ("c", 6), ("b", 4)]
    assert listed[0].bytes == sum(path.stat().st_size for path in listed[0].directory.glob("part-*"))
    assert listed[0].to_json()["feature_shape"] == [5]
    assert list_caches(tmp_path / "nowhere") == []


def test_the_nearest_cache_and_its_differences(tmp_path):
    assert nearest_cache(tmp_path, CONTENT) is None
    near = CONTENT | {"preprocessing": {"fit": "pad", "width": 16}}
    for content in (CONTENT | {"weights": "cd", "backbone": "other"}, near):
        fill(FeatureStore(tmp_path, content, SHAPE), range(2))
    listing, names = nearest_cache(tmp_path, CONTENT)
    assert listing.ingredients == near
    assert names == ["preprocessing.fit"]


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path):
    check_space(tmp_path / "not" / "there" / "yet", 1000)
    with pytest.raises(MachineError, match="cache prune"):
        check_space(tmp_path / "not" / "there" / "yet", 10**18)
    assert list(tmp_path.iterdir()) == []

"""Test cache-features and cache: features are computed once, reused, exported and pruned."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tlcli.backbones.zoo import load_backbone
from tlcli.commands.cache import cache_list, cache_prune
from tlcli.commands.cache_features import cache_features
from tlcli.errors import UsageError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.runs.run import load_run
from tlcli.settings import CacheFeaturesSettings, CacheSettings, NetworkSettings


def cache_of(data, cache, report=None, **changes):
    network = NetworkSettings(**({"size": 64} | changes.pop("network", {})))
    verify = changes.pop("verify", False)
    settings = CacheFeaturesSettings(
        data=data, network=network, cache=CacheSettings(directory=cache, verify=verify), **changes
    )
    return cache_features(settings, report)


@pytest.fixture
def data(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tlcli.features.memo.RACY_TICK", 0)
    shutil.copytree(photos, tmp_path / "photos")
    for path in (tmp_path / "photos").rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))  # long ago, so that the digest memo uses it
    return tmp_path / "photos"


def test_only_missing_features_are_computed(data, tmp_path):
    cache = tmp_path / "cache"
    first = cache_of(data, cache)
    assert (first["computed"], first["reused"], first["failed"]) == (45, 0, 0)
    assert first["feature_shape"] == [1280]
    assert first["dtype"] == "float32"
    assert 45 * 1280 * 4 < first["bytes"] < 2 * 45 * 1280 * 4
    again = cache_of(data, cache)
    assert (again["computed"], again["reused"]) == (0, 45)

    for index in range(10):
        original = (data / "disc" / f"{index:02d}.jpg").read_bytes()
        (data / "square" / f"added{index}.jpg").write_bytes(original + bytes([index]))
    assert cache_of(data, cache)["computed"] == 10

    edited = data / "disc" / "03.jpg"
    status = edited.stat()
    content = bytearray(edited.read_bytes())
    content[15] ^= 1  # the resolution in the JFIF header: another file with the same image
    edited.write_bytes(content)
    os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache_of(data, cache)["computed"] == 1, "only the time of change differs"
    assert cache_of(data, cache, verify=True)["computed"] == 0

    data.rename(tmp_path / "moved")
    (tmp_path / "moved" / "stripes").rename(tmp_path / "moved" / "bars")
    moved = cache_of(tmp_path / "moved", cache)
    assert (moved["computed"], moved["reused"]) == (0, 55)


@pytest.mark.slow
def test_other_settings_use_another_cache_and_are_named(data, tmp_path, report):
    cache = tmp_path / "cache"
    first = cache_of(data, cache)
    for changes, name in [
        ({"network": {"fit": "squash"}}, "preprocessing.fit"),
        ({"network": {"size": 32}}, "preprocessing.height"),
        ({"network": {"weights": "none"}}, "weights"),
        ({"network": {"backbone": "lenet5", "weights": "none", "size": None}}, "backbone"),
    ]:
        report.notes.clear()
        other = cache_of(data, cache, report, **changes)
        assert other["cache"] != first["cache"]
        assert other["computed"] == 45
        assert any("differs in" in text and name in text for text in report.notes), report.notes
    assert len(cache_list(cache)) == 5


def test_size_of_the_features_is_announced(data, tmp_path, report):
    cache_of(data, tmp_path / "cache", report)
    assert any("at most 232.0 kB" in text or "at most 232" in text for text in report.notes), report.notes


def test_exported_features_equal_those_of_the_backbone(data, tmp_path, trained):
    """Labels are the names of the folders."""
    out = tmp_path / "features.parquet"
    cache_of(data, tmp_path / "cache", export=out)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 45
    preprocessing = load_run(trained.run).preprocessing
    model = load_backbone("tf_efficientnet_lite0").model.eval()
    for row in rows[::9]:
        assert row["label"] == row["path"].rsplit("/", 2)[1]
        image = read_image(row["path"], DecodeOptions(preprocessing=preprocessing))
        assert row["digest"] == image.digest.hex()
        pixels = torch.tensor(np.frombuffer(image.pixels, np.uint8).reshape(64, 64, 3).copy())
        images = (pixels.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        with torch.inference_mode():
            expected = model.forward_head(model.forward_features(images), pre_logits=True)[0]
        np.testing.assert_allclose(row["feature"], expected.numpy(), atol=1e-4)
    with pytest.raises(UsageError, match="exists"):
        cache_of(data, tmp_path / "cache", export=out)


@pytest.mark.slow
def test_prune_removes_unused_caches(data, tmp_path):
    cache = tmp_path / "cache"
    old = cache_of(data, cache)
    cache_of(data, cache, network={"fit": "pad"})
    os.utime(tmp_path / "cache" / old["cache"].rsplit("/", 1)[1] / "cache.json", (1e9, 1e9))
    removed, busy = cache_prune(cache, older_than_days=1)
    assert [str(listing.directory) for listing in removed] == [old["cache"]]
    assert busy == []
    assert len(cache_list(cache)) == 1
    cache_prune(cache)
    assert cache_list(cache) == []
    assert cache_of(data, cache)["computed"] == 45

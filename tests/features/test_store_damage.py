"""The feature store after exceptions, on a full disk, with damaged files, and without permission to write."""

import json

import pytest
from stored_features import CONTENT, SHAPE, check, digest, feature, fill

from tlcli.errors import ArtifactError, MachineError
from tlcli.features.store import FeatureStore


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_rows_that_were_added_survive_an_exception(tmp_path, problem):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)

    def interrupted():
        with store.writing():
            for number in range(7):
                store.add(digest(number), 0, feature(digest(number)))
            raise problem

    with pytest.raises(problem):
        interrupted()
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(7))
    fill(store, range(7, 9))  # the lock is free
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(9))


def test_a_full_disk_loses_only_unwritten_features(tmp_path, full_disk):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    with pytest.raises(OSError), full_disk(4000):
        fill(store, range(5, 2000))
    again = FeatureStore(tmp_path, CONTENT, SHAPE)
    assert len(again) == 5
    check(again, range(5))
    assert not list(store.directory.glob("*.tmp"))
    fill(again, range(5, 2000))
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(2000))


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:400] + b"x" + data[401:], lambda _: b""])
def test_a_damaged_part_is_reported_and_computed_again(tmp_path, report, damage):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    fill(store, range(5, 9))
    path = min(store.directory.glob("part-*.arrow"))
    path.write_bytes(damage(path.read_bytes()))
    opened = FeatureStore(tmp_path, CONTENT, SHAPE, report)
    assert [warning for warning in report.warnings if str(path) in warning and "damaged" in warning]
    assert opened.keys() == {(digest(number), 0) for number in range(5, 9)}
    fill(opened, range(5))
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(9))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff"])
def test_a_damaged_cache_json_is_reported_and_rewritten(tmp_path, report, content):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    (store.directory / "cache.json").write_bytes(content)
    check(FeatureStore(tmp_path, CONTENT, SHAPE, report), range(5))
    assert any(
        "cache.json is damaged" in warning or "does not contain a JSON object" in warning for warning in report.warnings
    )
    assert json.loads((store.directory / "cache.json").read_text())["ingredients"] == CONTENT


def test_a_missing_cache_json_loses_nothing(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    (store.directory / "cache.json").unlink()
    again = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(again, range(5, 7))
    check(again, range(7))


def test_an_unknown_format_is_refused_and_left_alone(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    path = store.directory / "cache.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="format 999"):
        FeatureStore(tmp_path, CONTENT, SHAPE)
    assert path.read_bytes() == before


def test_a_cache_that_cannot_be_written(public_path, unprivileged):
    public_path.chmod(0o555)
    with unprivileged(), pytest.raises(MachineError, match="--no-cache") as caught:
        fill(FeatureStore(public_path, CONTENT, SHAPE), range(2))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_can_only_be_read_serves(public_path, unprivileged, damaged):
    store = FeatureStore(public_path, CONTENT, SHAPE)
    fill(store, range(3))
    if damaged:
        (store.directory / "cache.json").write_text("{")
    store.directory.chmod(0o555)
    with unprivileged():
        check(FeatureStore(public_path, CONTENT, SHAPE), range(3))

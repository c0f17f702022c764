"""`--shard I/N`: the concatenated results of all shards equal those of a single process."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlcli.commands.cache_features import cache_features
from tlcli.commands.predict import predict
from tlcli.errors import ArtifactError, DataError
from tlcli.inference.journal import journal_path
from tlcli.settings import CacheFeaturesSettings, CacheSettings, NetworkSettings, PredictSettings, Shard


def shards(count):
    return [Shard(number=number, of=count) for number in range(1, count + 1)]


@pytest.mark.parametrize("total", [0, 1, 7, 8, 1000])
@pytest.mark.parametrize("count", [1, 2, 7, 9])
def test_shards_cover_everything_in_order_with_similar_lengths(total, count):
    ranges = [shard.range(total) for shard in shards(count)]
    assert [index for chosen in ranges for index in chosen] == list(range(total))
    lengths = {len(chosen) for chosen in ranges}
    assert max(lengths) - min(lengths) <= 1


@pytest.fixture
def inputs(photos, tmp_path):
    """Eleven images, one of them broken, in a folder and a list."""
    (tmp_path / "in").mkdir()
    for path in sorted(photos.rglob("*.jpg"))[:30:4]:
        shutil.copy(path, tmp_path / "in" / f"{path.parent.name}{path.name}")
    (tmp_path / "in" / "e.jpg").write_bytes(b"no image")
    listed = sorted((photos / "stripes").iterdir())[:2]
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    return (str(tmp_path / "in"), f"@{tmp_path / 'list.txt'}")


def predict_into(out, trained, inputs, **changes):
    return predict(PredictSettings(run=trained.run, inputs=inputs, out=str(out), top=2, probabilities=True, **changes))


@pytest.mark.parametrize(("suffix", "count"), [("csv", 3), ("jsonl", 3), ("parquet", 13)])
def test_concatenated_rows_of_shards_equal_those_of_a_single_process(trained, inputs, tmp_path, suffix, count):
    """Of thirteen shards of eleven images, two have no rows."""
    out = tmp_path / f"whole.{suffix}"
    whole = predict_into(out, trained, inputs)
    parts = [tmp_path / f"part{shard.number:02d}.{suffix}" for shard in shards(count)]
    results = [
        predict_into(part, trained, inputs, shard=shard) for part, shard in zip(parts, shards(count), strict=True)
    ]
    assert sum(result.images for result in results) == whole.images == 11
    assert sum(result.failed for result in results) == whole.failed == 1
    assert results[1].to_json()["shard"] == f"2/{count}"
    match suffix:
        case "csv":
            texts = [part.read_text().splitlines(keepends=True) for part in parts]
            assert len({text[0] for text in texts}) == 1
            assert "".join([texts[0][0], *(row for text in texts for row in text[1:])]) == out.read_text()
        case "jsonl":
            assert b"".join(part.read_bytes() for part in parts) == out.read_bytes()
        case _:
            assert pa.concat_tables(map(pq.read_table, parts)).equals(pq.read_table(out))


@pytest.mark.parametrize(("suffix", "lines"), [("csv", 1), ("jsonl", 0)])
def test_a_shard_without_images_has_no_rows(trained, inputs, tmp_path, suffix, lines):
    out = tmp_path / f"rows.{suffix}"
    result = predict_into(out, trained, inputs, shard=Shard(number=1, of=12))
    assert (result.images, result.failed) == (0, 0)
    assert len(out.read_text().splitlines()) == lines


def test_an_empty_input_is_an_error_for_every_shard(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    for shard in shards(2):
        with pytest.raises(DataError, match="no images"):
            predict_into(tmp_path / "rows.csv", trained, (str(tmp_path / "empty"),), shard=shard)


def test_resuming_another_shard_is_rejected(trained, inputs, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tlcli.inference.journal.Journal.finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_into(out, trained, inputs, shard=Shard(number=1, of=2))
    assert journal_path(out).exists()
    with pytest.raises(ArtifactError, match="shard"):
        predict_into(out, trained, inputs, shard=Shard(number=1, of=3), resume=True)
    predict_into(out, trained, inputs, shard=Shard(number=1, of=2), resume=True)
    assert len(out.read_text().splitlines()) == 5
    again = predict_into(out, trained, inputs, shard=Shard(number=1, of=2), resume=True)
    assert again.was_finished
    with pytest.raises(ArtifactError, match="in place of"):
        predict_into(out, trained, inputs, shard=Shard(number=2, of=2), resume=True)


def features(data, cache, **changes):
    settings = CacheFeaturesSettings(
        data=data, network=NetworkSettings(size=64), cache=CacheSettings(directory=cache), **changes
    )
    return cache_features(settings)


@pytest.mark.slow
def test_features_of_shards_equal_those_of_a_single_process(photos, tmp_path):
    """They are bit-identical, whatever the batches, and their caches can be merged by copying."""
    whole = features(photos, tmp_path / "whole", export=tmp_path / "whole.parquet")
    exports, caches = [], []
    for shard in shards(3):
        exports.append(tmp_path / f"part{shard.number}.parquet")
        caches.append(tmp_path / f"cache{shard.number}")
        result = features(photos, caches[-1], export=exports[-1], shard=shard)
        assert result["images"] == result["computed"] == 15
    expected = pq.read_table(tmp_path / "whole.parquet")
    assert pa.concat_tables(map(pq.read_table, exports)).equals(expected)

    name = whole["cache"].rsplit("/", 1)[1]
    (tmp_path / "merged").mkdir()
    for cache in caches:
        shutil.copytree(cache / name, tmp_path / "merged" / name, dirs_exist_ok=True)
    merged = features(photos, tmp_path / "merged", export=tmp_path / "merged.parquet")
    assert (merged["computed"], merged["reused"]) == (0, 45)
    assert pq.read_table(tmp_path / "merged.parquet").equals(expected)


def test_a_shard_without_images_exports_no_rows(photos, tmp_path):
    result = features(photos, tmp_path / "cache", export=tmp_path / "none.parquet", shard=Shard(number=1, of=50))
    assert (result["images"], result["computed"], result["failed"]) == (0, 0, 0)
    exported = pq.read_table(tmp_path / "none.parquet")
    assert exported.num_rows == 0
    assert exported.column_names == ["path", "label", "split", "digest", "feature"]

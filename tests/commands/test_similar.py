"""similar: the nearest images of each query, as rows in input order."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from tlcli.cli.main import run
from tlcli.commands.similar import similar
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.features.cache import FeatureCache
from tlcli.inference.neighbor_rows import NEIGHBOR_COLUMNS
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings, PathPatterns, SimilarSettings

COMPUTE = ComputeSettings(workers=1, device="cpu")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One feature cache for all tests."""
    return CacheSettings(directory=tmp_path_factory.mktemp("features"))


@pytest.fixture
def search(trained, photos, cache):
    """Return `search(*inputs, data=photos, **options)`, which returns the result of similar."""

    def find(*inputs, network=trained.run, data=photos, **options):
        settings = {"compute": COMPUTE, "cache": cache} | options
        return similar(
            SimilarSettings(network=str(network), inputs=tuple(map(str, inputs)), data=str(data), **settings)
        )

    return find


@pytest.fixture
def inbox(photos, tmp_path):
    """Three copies of photos and, in the middle, a broken image."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name, source in (("a.jpg", "disc/03.jpg"), ("c.jpg", "square/07.jpg"), ("d.jpg", "stripes/00.jpg")):
        shutil.copy(photos / source, folder / name)
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def cosines(trained, cache, paths, query):
    """Return the cosines of the stored features of some images and a query, in float64."""
    from tlcli.progress import Silent
    from tlcli.web.label.network import open_labeling_network

    network = open_labeling_network(NetworkSettings(backbone=str(trained.run)), COMPUTE, cache, 9, Silent())
    extraction = network.extractor.extract([str(path) for path in [*paths, query]])
    features = network.extractor.plain.gather(extraction.digests).astype(np.float64)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    return units[:-1] @ units[-1]


def test_rows_are_the_nearest_images_by_cosine(trained, photos, inbox, cache, search):
    query = inbox / "a.jpg"
    rows = search(query, top=12).rows
    paths = sorted(photos.rglob("*.jpg"))
    expected = cosines(trained, cache, paths, query)
    order = np.argsort(-expected.round(9), kind="stable")[:12]
    assert [row["path"] for row in rows] == [str(paths[index]) for index in order]
    assert [row["similarity"] for row in rows] == pytest.approx(expected[order], abs=2e-6)
    assert [row["rank"] for row in rows] == list(range(1, 13))
    assert [row["label"] for row in rows] == [paths[index].parent.name for index in order]
    assert {(row["query"], row["status"], row["error"]) for row in rows} == {(str(query), "ok", None)}


def test_a_copy_is_found_but_not_the_query_itself(photos, inbox, search, tmp_path):
    own = photos / "disc" / "03.jpg"
    assert search(inbox / "a.jpg", top=1).rows[0] | {"rank": 0} == {
        "query": str(inbox / "a.jpg"),
        "rank": 0,
        "path": str(own),
        "similarity": 1.0,
        "label": "disc",
        "status": "ok",
        "error": None,
    }
    (tmp_path / "link.jpg").symlink_to(own)
    for same in (own, tmp_path / "link.jpg", os.path.relpath(own)):
        found = search(same, top=44).rows
        assert len(found) == 44
        assert str(own) not in [row["path"] for row in found]
    assert len(search(own, top=99).rows) == 44


def test_each_query_has_its_rows_in_input_order(inbox, search):
    result = search(inbox, top=2)
    assert [row["query"].rsplit("/", 1)[1] for row in result.rows] == ["a.jpg"] * 2 + ["b.png"] + ["c.jpg"] * 2 + [
        "d.jpg"
    ] * 2
    broken = result.rows[2]
    assert (broken["status"], broken["rank"], broken["path"], broken["similarity"]) == ("failed", None, None, None)
    assert broken["error"] == "not an image of a known format"
    assert (result.queries, len(result.failed), result.images) == (4, 1, 45)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_files_have_the_same_rows(inbox, search, tmp_path, suffix):
    out = tmp_path / f"rows{suffix}"
    search(inbox, top=3, out=str(out))
    expected = search(inbox, top=3).rows
    match suffix:
        case ".csv":
            found = list(csv.DictReader(io.StringIO(out.read_text())))
            expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in expected]
        case ".jsonl":
            found = [json.loads(line) for line in out.read_text().splitlines()]
        case _:
            table = pq.read_table(out)
            assert [
                str(kind) for kind in table.schema.types
            ] == "string int64 string double string string string".split()
            found = table.to_pylist()
    assert found == expected
    assert list(found[0]) == list(NEIGHBOR_COLUMNS)


def test_images_without_labels_have_an_empty_label(photos, inbox, search, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(photos / "disc", flat)
    (tmp_path / "list.txt").write_text(f"{flat}/03.jpg\n{flat}/04.jpg\n")
    for data, count in ((flat, 15), (f"@{tmp_path / 'list.txt'}", 2)):
        result = search(inbox / "a.jpg", data=data, top=99)
        assert (result.labeled, result.images, len(result.rows)) == (False, count, count)
        assert {row["label"] for row in result.rows} == {None}


def test_a_backbone_has_its_own_options_and_a_run_refuses_them(inbox, search):
    network = NetworkSettings(weights="none", size=32)
    rows = search(inbox / "a.jpg", network="lenet5", backbone=NetworkSettings(weights="none"), top=1).rows
    assert rows[0]["similarity"] == 1
    with pytest.raises(UsageError, match="--weights has no effect with the run"):
        search(inbox / "a.jpg", backbone=network)


def test_features_of_the_run_are_cached(inbox, search, cache, monkeypatch):
    for path in inbox.iterdir():
        os.utime(path, (1e9, 1e9))  # a file that has just been written would be read again
    first = search(inbox, top=3).rows
    monkeypatch.setattr(FeatureCache, "announce", lambda *_: pytest.fail("a feature is computed again"))
    assert search(inbox / "a.jpg", top=3).rows == first[:3]


def test_unreadable_images_of_data_are_listed(photos, inbox, search, tmp_path, capfd):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "disc" / "00.jpg").write_bytes(b"no image")
    result = search(inbox / "a.jpg", data=data, top=99)
    assert (len(result.unusable), result.images, len(result.rows)) == (1, 44, 44)
    assert result.to_json()["failures"][0]["path"] == str(data / "disc" / "00.jpg")
    for path in data.rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 45 images"):
        search(inbox / "a.jpg", data=data)


def test_filters_apply_to_data(inbox, search):
    result = search(inbox / "a.jpg", filters=PathPatterns(exclude=("disc/",)), top=99)
    assert result.images == 30
    assert {row["label"] for row in result.rows} == {"square", "stripes"}


def test_json_is_one_object_and_the_exit_code_tells_failures(trained, photos, inbox, cache, capfd):
    arguments = ["similar", str(trained.run), "--in", str(photos), "--top", "2", "--cache", str(cache.directory)]
    assert run([*arguments, str(inbox), "--json"]) == 3
    found = json.loads(capfd.readouterr().out)
    keys = "out network images unusable labeled queries failed failures unlisted seconds rows".split()
    assert list(found) == keys
    assert len(found["rows"]) == 7
    assert run([*arguments, str(inbox / "a.jpg")]) == 0
    shown = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["rank"] for row in shown] == ["1", "2"]


def test_hostile_names_are_escaped(photos, inbox, search, tmp_path):
    names = ["new\nline.jpg", "<script>alert(1)<b>.jpg", 'quote",comma.jpg', os.fsdecode(b"\xff.jpg")]
    data = tmp_path / "data"
    data.mkdir()
    for name in names:
        shutil.copy(inbox / "a.jpg", data / name)
    out, page = tmp_path / "rows.csv", tmp_path / "page.html"
    for path in (out, page):
        result = search(data, data=data, top=9, out=str(path))
        assert result.failed == []
    rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode(), newline="")))
    assert len(rows) == 12
    assert {row["similarity"] for row in rows} == {"1.0"}
    assert {row["path"] for row in rows} >= {str(data / name) for name in names[:3]}
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_outputs_are_protected(photos, inbox, search, trained, tmp_path):
    out = tmp_path / "rows.csv"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        search(inbox, out=str(out))
    assert out.read_text() == "mine"
    search(inbox, out=str(out), overwrite=True)
    assert out.read_text().startswith("query,")
    with pytest.raises(UsageError, match="is inside the run"):
        search(inbox, out=str(trained.run / "rows.csv"))
    with pytest.raises(UsageError, match="ending in"):
        search(inbox, out="rows.txt")
    with pytest.raises(UsageError, match="is an input"):
        search(inbox / "a.jpg", f"@{out}", data=photos, out=str(out), overwrite=True)


def test_wrong_inputs_are_named(inbox, search, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--in: no images in"):
        search(inbox, data=tmp_path / "empty")
    with pytest.raises(DataError, match="nowhere does not exist"):
        search(inbox, data="nowhere")
    with pytest.raises(DataError, match="no images in"):
        search(tmp_path / "empty")
    with pytest.raises(UsageError, match="There is no backbone"):
        search(inbox, network="no-such-net")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ArtifactError):
        search(inbox, network=tmp_path / "run")
    with pytest.raises(UsageError, match="standard input is one list"):
        search("-", data="-")
    with pytest.raises(UsageError, match="--top is 0"):
        search(inbox, top=0)

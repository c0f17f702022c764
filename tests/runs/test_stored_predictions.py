"""Stored predictions by digest, of this version and of earlier ones, which stored no digests."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tlcli.errors import ArtifactError
from tlcli.progress import Silent
from tlcli.runs.run import load_run
from tlcli.runs.stored_predictions import stored_predictions
from tlcli.storage.files import sealed


def stored(run, report=None):
    return stored_predictions(load_run(run), workers=1, report=report or Silent())


def rewritten(run, target, change):
    """Copy a run with other predictions, and valid checksums."""
    shutil.copytree(run, target)
    path = target / "predictions.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    info = json.loads((target / "run.json").read_text())
    info["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (target / "run.json").write_text(json.dumps(sealed(info)))
    return target


def without_digests(table):
    return table.drop_columns(["digest"])


def test_digests_are_those_of_the_images(trained, photos):
    found = stored(trained.run)
    assert found.keys() == {hashlib.sha256(path.read_bytes()).digest() for path in photos.rglob("*.jpg")}
    assert all(row.label == Path(row.path).parent.name for row in found.values())


def test_images_of_earlier_runs_are_read_again(trained, tmp_path):
    assert stored(rewritten(trained.run, tmp_path / "old", without_digests)) == stored(trained.run)


def test_relative_paths_are_found_from_another_directory(trained, photos, tmp_path, monkeypatch):
    def relative(table):
        paths = [str(Path(path).relative_to(photos.parent)) for path in table["path"].to_pylist()]
        return table.set_column(table.column_names.index("path"), "path", [paths])

    monkeypatch.chdir(tmp_path)
    old = rewritten(trained.run, tmp_path / "old", lambda table: without_digests(relative(table)))
    assert stored(old) == stored(trained.run)


def test_images_that_are_gone_or_changed_are_left_out_with_a_warning(trained, photos, tmp_path, report):
    def moved(table):
        first = [str(tmp_path / "gone.jpg"), str(tmp_path / "changed.jpg")]
        return table.set_column(0, "path", [[*first, *table["path"].to_pylist()[2:]]])

    shutil.copy(photos / "disc" / "00.jpg", tmp_path / "changed.jpg")
    with (tmp_path / "changed.jpg").open("ab") as file:
        file.write(b"changed")
    found = stored(rewritten(trained.run, tmp_path / "old", lambda table: without_digests(moved(table))), report)
    assert len(found) == 43
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("2 of the 45 images that")
    assert "gone.jpg" in report.warnings[0]


def test_the_first_of_identical_copies_remains(trained, tmp_path):
    def doubled(table):
        import pyarrow as pa

        return pa.concat_tables([table, table.set_column(0, "path", [["copy"] * len(table)])])

    assert stored(rewritten(trained.run, tmp_path / "run", doubled)) == stored(trained.run)


def test_a_missing_column_is_an_error(trained, tmp_path):
    run = rewritten(trained.run, tmp_path / "run", lambda table: table.drop_columns(["predicted"]))
    with pytest.raises(ArtifactError, match="has no column predicted"):
        stored(run)

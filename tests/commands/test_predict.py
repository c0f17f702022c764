"""predict: one row per image, in input order, also after an interruption."""

from __future__ import annotations

import io
import json
import os
import shutil

import pytest

from tlcli.commands.predict import predict
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.inference.journal import journal_path
from tlcli.inference.predictor import Predictor
from tlcli.settings import ComputeSettings, PredictSettings


@pytest.fixture
def inbox(photos, tmp_path):
    """Images in two folders: names occur in both, and one image is broken."""
    for index, path in enumerate(sorted(photos.rglob("*.jpg"))[::4]):
        folder = tmp_path / "inbox" / ("a" if index % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{index // 2}.jpg")
    (tmp_path / "inbox" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "inbox"


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_in_input_order(trained, inbox, tmp_path):
    inputs = (str(inbox / "b"), str(inbox / "a" / "0.jpg"), str(inbox / "a"))
    result = predict(PredictSettings(run=trained.run, inputs=inputs, out=str(tmp_path / "rows.jsonl")))
    rows = rows_of(tmp_path / "rows.jsonl")
    expected = [str(path) for path in sorted((inbox / "b").iterdir())]
    expected += [str(inbox / "a" / "0.jpg")] + [str(path) for path in sorted((inbox / "a").iterdir())]
    assert [row["path"] for row in rows] == expected
    assert result.images == len(expected)
    assert result.failed == 1
    assert [row["path"] for row in rows if row["status"] == "failed"] == [str(inbox / "a" / "broken.png")]
    assert rows[expected.index(inputs[1])] == rows[len(expected) - 1 - expected[::-1].index(inputs[1])]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_do_not_depend_on_batch_size_or_workers(trained, inbox, tmp_path, batch_size):
    reference, other = tmp_path / "reference.jsonl", tmp_path / "other.jsonl"
    predict(PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(reference), probabilities=True))
    compute = ComputeSettings(batch_size=batch_size, workers=3)
    predict(PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(other), probabilities=True, compute=compute))
    for one, two in zip(rows_of(reference), rows_of(other), strict=True):
        assert one["path"] == two["path"]
        assert one["label"] == two["label"]
        for name in trained.info["classes"]:
            assert one[f"p:{name}"] == pytest.approx(two[f"p:{name}"], abs=5e-6)


def test_resume_after_an_interruption_gives_the_same_file(trained, inbox, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.csv", tmp_path / "rows.csv"
    predict(PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(whole)))
    settings = {"run": trained.run, "inputs": (str(inbox),), "out": str(out), "resume": True}
    monkeypatch.setattr("tlcli.inference.rows.ROWS_PER_BATCH", 4)
    monkeypatch.setattr("tlcli.inference.predictor.COMPARED_TOGETHER", 4)
    original, calls = Predictor.probabilities, []

    def interrupted(self, pixels):
        calls.append(len(pixels))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(self, pixels)

    monkeypatch.setattr(Predictor, "probabilities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(PredictSettings(**settings, compute=ComputeSettings(batch_size=4)))
    assert not out.exists()
    assert journal_path(out).exists()
    monkeypatch.setattr(Predictor, "probabilities", original)

    with pytest.raises(ArtifactError, match="min_confidence"):
        predict(PredictSettings(**settings, min_confidence=0.5))
    (inbox / "a" / "new.jpg").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="inputs"):
        predict(PredictSettings(**settings))
    (inbox / "a" / "new.jpg").unlink()

    result = predict(PredictSettings(**settings, compute=ComputeSettings(batch_size=4)))
    assert out.read_bytes() == whole.read_bytes()
    assert result.images == len(whole.read_text().splitlines()) - 1
    assert not journal_path(out).exists()


def test_resume_of_a_finished_prediction_changes_nothing(trained, inbox, tmp_path):
    out = tmp_path / "rows.csv"
    predict(PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(out), resume=True))
    before = out.read_bytes()
    predict(PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(out), resume=True))
    assert out.read_bytes() == before


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_resume_refuses_an_output_with_other_inputs_or_options(trained, inbox, tmp_path, suffix):
    out = tmp_path / f"rows.{suffix}"
    settings = {"run": trained.run, "out": str(out)}
    made = predict(PredictSettings(**settings, inputs=(str(inbox),)))
    again = predict(PredictSettings(**settings, inputs=(str(inbox),), resume=True))
    assert again.was_finished
    assert (again.images, again.failed, again.labels) == (made.images, made.failed, made.labels)
    for changes, message in [
        ({"inputs": (str(inbox), str(inbox / "a"))}, "a different number"),
        ({"inputs": (str(inbox / "b"), str(inbox / "a"))}, "in place of"),
        ({"inputs": (str(inbox),), "top": 2}, "its columns are"),
    ]:
        with pytest.raises(ArtifactError, match=message):
            predict(PredictSettings(**settings, **changes, resume=True))


def test_resume_refuses_an_output_older_than_an_image_or_the_run(trained, inbox, tmp_path):
    out = tmp_path / "rows.csv"
    settings = PredictSettings(run=trained.run, inputs=(str(inbox),), out=str(out), resume=True)
    predict(settings)
    image = next(path for path in sorted(inbox.rglob("*")) if path.is_file())
    before = image.stat()
    os.utime(image, ns=(out.stat().st_mtime_ns + 1, out.stat().st_mtime_ns + 1))
    with pytest.raises(ArtifactError, match=f"{image.name} was changed later"):
        predict(settings)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert predict(settings).was_finished
    os.utime(out, (0, 0))
    with pytest.raises(ArtifactError, match="was trained later"):
        predict(settings)


def test_errors_are_raised_before_predicting(trained, inbox, tmp_path):
    (tmp_path / "empty").mkdir()
    for inputs, out, error, message in [
        ((str(tmp_path / "nowhere.jpg"),), None, DataError, "does not exist"),
        ((str(tmp_path / "empty"),), None, DataError, "no images"),
        ((str(inbox),), str(tmp_path / "rows.xlsx"), UsageError, "expected a name ending in"),
        ((str(inbox),), str(tmp_path / "no" / "rows.csv"), UsageError, "does not exist"),
    ]:
        with pytest.raises(error, match=message):
            predict(PredictSettings(run=trained.run, inputs=inputs, out=out))
    assert not list(tmp_path.glob(".*"))


def test_inputs_from_a_list_file(trained, inbox, tmp_path):
    names = [str(path) for path in sorted((inbox / "b").iterdir(), reverse=True)]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    stdout = io.StringIO()
    predict(PredictSettings(run=trained.run, inputs=(f"@{tmp_path / 'list.txt'}",), out="-"), stdout=stdout)
    assert [line.split(",")[0] for line in stdout.getvalue().splitlines()[1:]] == names


def test_top_ranks_by_probability(trained, inbox, tmp_path):
    settings = PredictSettings(
        run=trained.run, inputs=(str(inbox),), out=str(tmp_path / "rows.jsonl"), top=9, probabilities=True
    )
    predict(settings)
    for row in rows_of(tmp_path / "rows.jsonl"):
        if row["status"] == "failed":
            assert row["label_3"] is None
            continue
        ranked = [(row["label"], row["confidence"])]
        ranked += [(row[f"label_{rank}"], row[f"confidence_{rank}"]) for rank in (2, 3)]
        assert "label_4" not in row
        assert [share for _, share in ranked] == sorted((share for _, share in ranked), reverse=True)
        for name, share in ranked:
            assert row[f"p:{name}"] == share

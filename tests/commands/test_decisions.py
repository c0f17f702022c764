"""predict --target-precision and --sets: what the rows say, what is reported, and what is refused."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest

from tlcli.cli.main import run as tlcli
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.inference.row_files import read_rows
from tlcli.runs.held_out_predictions import held_out_predictions
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings, PredictSettings
from tlcli.settings.machines import Shard


def predicted(trained, *inputs, report=None, **changes):
    return predict(PredictSettings(run=trained.run, inputs=tuple(map(str, inputs)), **changes), report)


def test_a_promise_that_few_images_support(trained, photos, report):
    found = predicted(trained, photos, report=report, target_precision=("0.6",), unknown_rate=0)
    promise = found.to_json()["precision"]
    assert promise["confidence"] == 0.95
    assert promise["automatic"] == 1
    assert promise["classes"]["disc"] == {"target": 0.6, "threshold": 0, "held_out": 15, "automatic": 15}
    assert {row["status"] for row in found.rows} == {"ok"}
    assert "about 100 % of images stay automatic (by 45 held-out images)" in report.notes[0]


def test_a_promise_that_is_impossible_sends_all_images_to_review(trained, photos, report):
    found = predicted(trained, photos, report=report, target_precision=("0.98",), unknown_rate=0)
    assert {row["status"] for row in found.rows} == {"review"}
    assert found.to_json()["precision"]["automatic"] == 0
    text = "\n".join(report.notes)
    assert "3 classes have no promise" in text
    assert "disc: 15 held-out images with this label; at least 149 needed" in text


def test_a_small_validation_part_is_named_as_the_reason(trained, photos, tmp_path, report):
    settings = FinetuneSettings(
        data=photos,
        out=tmp_path / "run",
        network=NetworkSettings(size=64),
        cache=CacheSettings(directory=trained.cache),
        validation_fraction=0.4,
    )
    finetune(settings)
    predict(PredictSettings(run=tmp_path / "run", inputs=(str(photos),), target_precision=("0.9",)), report)
    assert "Only the validation images count" in "\n".join(report.notes)
    report.notes.clear()
    predicted(trained, photos, report=report, target_precision=("0.9",))
    assert "Only the validation images count" not in "\n".join(report.notes)


def test_single_classes_can_have_a_target(trained, photos):
    found = predicted(trained, photos, target_precision=("disc=0.98",), unknown_rate=0)
    assert found.to_json()["precision"]["classes"].keys() == {"disc"}
    assert all((row["status"] == "review") == (row["label"] == "disc") for row in found.rows)
    both = predicted(trained, photos, target_precision=("0.98", "disc=0.6"), unknown_rate=0)
    assert all((row["status"] == "ok") == (row["label"] == "disc") for row in both.rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("disk=0.9",), "no such class; found disc, square, stripes"),
        (("much",), "expected a precision such as 0.98"),
        (("disc=",), "expected a precision such as 0.98"),
        (("1",), "expected more than 0 and less than 1"),
        (("disc=98",), "--target-precision disc=98: expected more than 0 and less than 1"),
        (("0.9", "0.8"), "twice for all classes"),
        (("disc=0.9", "disc=0.8"), "twice for disc"),
    ],
)
def test_invalid_targets_are_refused(trained, photos, values, message):
    with pytest.raises(UsageError) as caught:
        predicted(trained, photos, target_precision=values)
    assert message in str(caught.value)


def test_sets_have_the_label_first_in_all_formats(trained, photos, tmp_path, report):
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"rows.{form}"
        predicted(trained, photos, report=report, sets=0.9, out=str(out))
        rows = list(read_rows(out))
        assert [*rows[0]][4:7] == ["error", "novelty", "set"]
        assert all(row["set"].split("|")[0] == row["label"] for row in rows)
    assert "contain the true class in 90 % of cases" in report.notes[0]


def test_an_unreadable_image_has_no_set(trained, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    (row,) = predicted(trained, tmp_path, sets=0.9, top=2).rows
    assert row["status"] == "failed"
    assert row["set"] is None


def test_too_few_held_out_images_for_the_coverage(trained, photos):
    with pytest.raises(DataError, match="needs 99 held-out images, but the run has 45"):
        predicted(trained, photos, sets=0.99)


def test_shards_have_the_rows_of_the_whole(trained, photos):
    options = {"sets": 0.9, "target_precision": ("0.8",)}
    whole = predicted(trained, photos, **options).rows
    parts = [predicted(trained, photos, shard=Shard(number=index, of=2), **options).rows for index in (1, 2)]
    assert parts[0] + parts[1] == whole


def test_a_finished_output_is_reused_only_with_the_same_promises(trained, photos, tmp_path):
    out = {"out": str(tmp_path / "rows.csv"), "resume": True, "unknown_rate": 0}
    predicted(trained, photos, **out, sets=0.9, target_precision=("disc=0.6",))
    assert predicted(trained, photos, **out, sets=0.9, target_precision=("disc=0.6",)).was_finished
    for changed in ({"sets": 0.9, "target_precision": ("0.98",)}, {"target_precision": ("disc=0.6",)}):
        with pytest.raises(ArtifactError, match="other inputs or options"):
            predicted(trained, photos, **out, **changed)


def test_one_prediction_of_each_group_counts(trained, monkeypatch):
    run = load_run(trained.run)
    table = pq.read_table(trained.run / "predictions.parquet")
    assert len(held_out_predictions(run).labels) == len(set(table["group"].to_pylist())) == len(table) == 45
    groups = [["one", *(str(row) for row in range(1, len(table)))][row if row > 4 else 0] for row in range(len(table))]
    place = table.column_names.index("group")
    changed = io.BytesIO()
    pq.write_table(table.set_column(place, "group", [groups]), changed)
    monkeypatch.setattr(type(run), "content", lambda *_: changed.getvalue())
    assert len(held_out_predictions(run).labels) == 41


@pytest.mark.parametrize(("column", "value"), [("label", "cat"), ("predicted", None), ("probabilities", [0.5, 0.5])])
def test_predictions_that_do_not_fit_the_classes_are_refused(trained, monkeypatch, column, value):
    run = load_run(trained.run)
    table = pq.read_table(trained.run / "predictions.parquet")
    place, changed = table.column_names.index(column), io.BytesIO()
    pq.write_table(table.set_column(place, column, [[value] * len(table)]), changed)
    monkeypatch.setattr(type(run), "content", lambda *_: changed.getvalue())
    with pytest.raises(ArtifactError, match="does not fit the run's 3 classes"):
        held_out_predictions(run)


def test_the_terminal_says_what_is_promised_before_the_rows(trained, photos, capsys):
    assert tlcli(["predict", str(trained.run), str(photos), "--target-precision", "0.6", "--sets", "0.9"]) == 0
    found = capsys.readouterr()
    assert found.out.startswith("path,label,confidence,status,error,novelty,set\n")
    assert "Precision 60 % of each class, promised with 95 % confidence" in found.err
    arguments = ["predict", str(trained.run), str(photos), "--sets", "0.9", "--json"]
    assert tlcli(arguments) == 0
    assert json.loads(capsys.readouterr().out)["sets"].keys() == {"coverage", "limit", "mean_size", "single"}

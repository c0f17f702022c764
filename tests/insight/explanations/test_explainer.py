"""predict --explain writes one card per image, in order, and does not change the rows."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tlcli.cli.main import run
from tlcli.commands.predict import predict
from tlcli.errors import UsageError
from tlcli.inference.explained_rows import ExplainedRow, ExplainedRows, card_name
from tlcli.settings import ComputeSettings, PredictSettings

NAMES = ["a/1.jpg", "b/1.jpg", "<script>alert(1).jpg", "caf\u00e9 \u65e5\u672c.jpg", "new\nline.jpg", "-rf.jpg"]


@pytest.fixture
def inbox(photos, tmp_path):
    """A folder of images with odd names; the first and the last one are unreadable."""
    root = tmp_path / "inbox"
    for path, name in zip(sorted(photos.rglob("*.jpg"))[::7], NAMES, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / name)
    with Image.open(root / "a/1.jpg") as image:
        image.save(os.fsencode(root) + b"/latin \xe9\xff.jpg", "JPEG")
    (root / "  broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "zz.jpg").write_bytes(b"\xff\xd8\xff half")
    return root


def lines_of(folder):
    return [json.loads(line) for line in (folder / "explain.jsonl").read_text(encoding="utf8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_rows_are_unchanged_and_cards_match_them(trained, inbox, tmp_path, engine):
    settings = {"run": trained.run, "inputs": (str(inbox),), "top": 3, "compute": ComputeSettings(engine=engine)}
    plain = predict(PredictSettings(**settings, out=str(tmp_path / "plain.csv")))
    result = predict(PredictSettings(**settings, out=str(tmp_path / "rows.csv"), explain=tmp_path / "why"))
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()
    assert plain.explained is None
    assert result.explained == {"out": str(tmp_path / "why"), "images": 7, "skipped": 2}

    rows = predict(PredictSettings(**settings)).rows
    lines = lines_of(tmp_path / "why")
    assert [line["path"] for line in lines] == [row["path"] for row in rows if row["status"] != "failed"]
    for line in lines:
        row = rows[line["row"] - 1]
        assert (line["path"], line["label"], line["confidence"]) == (row["path"], row["label"], row["confidence"])
        found = [(one["label"], one["confidence"]) for one in line["top"]]
        expected = [(row["label"], row["confidence"])] + [(row[f"label_{n}"], row[f"confidence_{n}"]) for n in (2, 3)]
        assert [label for label, _ in found] == [label for label, _ in expected]
        assert [share for _, share in found] == pytest.approx([share for _, share in expected], abs=2e-6)
    files = [line["file"] for line in lines]
    assert sorted([*files, "explain.jsonl"]) == sorted(os.listdir(tmp_path / "why"))  # noqa: PTH208
    assert len(set(files)) == 7
    for name in files:
        with Image.open(tmp_path / "why" / name) as image:
            assert image.format == "JPEG"
            image.load()


def test_the_first_readable_images_are_explained(trained, inbox, tmp_path):
    settings = PredictSettings(run=trained.run, inputs=(str(inbox),), explain=tmp_path / "why", explain_limit=2)
    result = predict(settings)
    assert result.explained == {"out": str(tmp_path / "why"), "images": 2, "skipped": 1}
    assert [line["row"] for line in lines_of(tmp_path / "why")] == [2, 3]
    assert result.images == 9


@pytest.mark.slow
def test_images_that_changed_since_their_row_are_left_out(trained, inbox, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    assert run(["predict", str(trained.run), str(inbox), "--out", str(out), "--quiet"]) == 3
    shutil.copy2(inbox / "-rf.jpg", tmp_path / "keep.jpg")
    (inbox / "-rf.jpg").write_bytes(b"gone")
    os.utime(inbox / "-rf.jpg", (1e9, 1e9))  # a file newer than the rows is refused earlier
    command = ["predict", str(trained.run), str(inbox), "--out", str(out), "--explain", str(tmp_path / "why")]
    assert run([*command, "--resume"]) == 0
    output = capsys.readouterr().err
    assert "1 image changed since the prediction" in output
    assert "6 of 9 images explained, 3 skipped" in output
    assert not any(line["path"].endswith("-rf.jpg") for line in lines_of(tmp_path / "why"))
    shutil.copy2(tmp_path / "keep.jpg", inbox / "-rf.jpg")
    assert run([*command, "--resume"]) == 0, "the folder of --explain is written again"
    assert len(lines_of(tmp_path / "why")) == 7


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_rotated_images_are_shown_and_indexed_upright(trained, tmp_path, orientation):
    """The upright image is three times as tall as wide, with a black rectangle at its left edge."""
    upright = np.full((240, 80, 3), 255, np.uint8)
    upright[100:140, 10:40] = 0
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    stored = Image.fromarray(np.rot90(upright, turns).copy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    predict(PredictSettings(run=trained.run, inputs=(str(tmp_path / "turned.jpg"),), explain=tmp_path / "why"))
    (line,) = lines_of(tmp_path / "why")
    assert line["size"] == [80, 240]
    assert line["seen"] == [5.0, 85.0, 75.0, 155.0]
    with Image.open(tmp_path / "why" / line["file"]) as card:
        panel = np.asarray(card.convert("L"))[64:464, 28:161]  # 400 / 240 of its size
    rows, columns = np.nonzero(panel < 128)
    assert (rows.mean() * 240 / 400, columns.mean() * 80 / 133) == pytest.approx((120, 25), abs=3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--explain", "inbox/why"], "is inside INPUT"),
        (["--explain", "inbox"], "is inside INPUT"),
        (["--explain", "RUN/why"], "is inside the run"),
        (["--explain", "full"], "is not empty"),
        (["--explain", "full", "--overwrite"], "did not write"),
        (["--explain", "photos-like", "--overwrite"], "did not write"),
        (["--explain", "file"], "is a file"),
        (["--explain", "new", "--out", "new/rows.csv"], "does not exist"),
        (["--explain", ".", "--out", "rows.csv"], "is inside"),
        (["--explain-limit", "3"], "no effect without --explain"),
        (["--explain", "new", "--explain-limit", "0"], "--explain-limit is 0"),
        (["--explain", "new", "--resume"], "--resume has no effect without --out"),
    ],
)
@pytest.mark.usefixtures("inbox")
def test_invalid_folders_are_refused_before_anything_is_written(words, why, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.run, tmp_path / "RUN")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "photos-like").mkdir()
    (tmp_path / "photos-like" / "000001-holiday.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    inputs = "." if words[:2] == ["--explain", "."] else "inbox"
    assert run(["predict", "RUN", inputs, *words]) == 2
    output = capsys.readouterr()
    assert why in output.err
    assert output.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_card_given_as_input_is_not_replaced(trained, inbox, tmp_path):
    settings = {"run": trained.run, "explain": tmp_path / "why", "overwrite": True}
    predict(PredictSettings(**settings, inputs=(str(inbox),)))
    card = tmp_path / "why" / lines_of(tmp_path / "why")[0]["file"]
    before = card.read_bytes()
    with pytest.raises(UsageError, match="which is an input"):
        predict(PredictSettings(**settings, inputs=(str(card),)))
    assert card.read_bytes() == before
    predict(PredictSettings(**settings, inputs=(str(inbox / "a"),)))
    assert len(lines_of(tmp_path / "why")) == 1


@pytest.mark.slow
def test_a_failure_keeps_the_old_folder_and_leaves_no_other_files(trained, inbox, tmp_path, monkeypatch):
    settings = PredictSettings(run=trained.run, inputs=(str(inbox),), explain=tmp_path / "why", overwrite=True)
    predict(settings)
    before = {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()}
    monkeypatch.setattr("tlcli.insight.explanations.explainer.draw_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(settings)
    assert {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inbox", "why"]


@pytest.mark.slow
def test_json_with_a_list_on_standard_input(trained, inbox, tmp_path, capfdbinary, monkeypatch):
    import io
    import sys

    listed = io.TextIOWrapper(io.BytesIO(os.fsencode(inbox / "a/1.jpg") + b"\n"))
    monkeypatch.setattr(sys, "stdin", listed)
    assert run(["predict", str(trained.run), "-", "--json", "--explain", str(tmp_path / "why")]) == 0
    found = json.loads(capfdbinary.readouterr().out)
    assert found["explained"] == {"out": str(tmp_path / "why"), "images": 1, "skipped": 0}
    assert len(found["rows"]) == 1


def test_card_names_are_safe_and_unique():
    paths = ["../../etc/passwd", "a/same.jpg", "b/same.jpg", "..", "x" * 900, "\udcff/\n.jpg", "\u65e5\u672c.jpg"]
    names = [card_name(ExplainedRow(row, path, "cat", 0.5)) for row, path in enumerate(paths, 1)]
    assert len(set(names)) == len(paths)
    assert all("/" not in name and name.isascii() and name.isprintable() and len(name) < 100 for name in names)


def test_only_rows_that_will_be_explained_are_kept():
    selection = ExplainedRows(limit=2)
    for number in range(1000):
        selection.offer(f"{number}.jpg", None if number == 0 else "cat", None if number == 0 else 0.5)
    assert [row.row for row in selection.rows] == [2, 3]
    assert (selection.seen, selection.skipped) == (1000, 1)

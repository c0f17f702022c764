"""Untrusted names are kept byte for byte in every table, and never interpreted."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pty
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlcli.cli.main import run
from tlcli.storage.files import from_portable_name

CLASSES = ["<script>alert(1)", "[red]\x1b[31m", "=cmd()", "-rf", 'quo"te, comma', "two\nlines", "\udcff\udcfe"]
NAMES = [
    b"plain.jpg",
    b"=cmd().jpg",
    b"@SUM(1).jpg",
    b"+1.jpg",
    b"-rf.jpg",
    b"[/red].jpg",
    b"[bold red]x[/].jpg",
    b"\x1b]0;owned\x07.jpg",
    b"\x1b[2J.jpg",
    "c1 \x9b31m.jpg".encode(),
    "right to left \u202egpj.jpg".encode(),
    b"new\nline.jpg",
    b"return\r.jpg",
    b"tab\t.jpg",
    b'"quoted".jpg',
    b"it's.jpg",
    b"comma, semi; pipe|.jpg",
    b"$(touch owned) `touch owned`.jpg",
    b"<img src=x onerror=alert(1)>.jpg",
    b"file:%2F%2Fetc.jpg",
    b"percent%00%0A.jpg",
    "emoji \U0001f697.jpg".encode(),
    b"latin \xe9\xff.jpg",
    b" leading and trailing .jpg",
    b"n" * 251 + b".jpg",
    b"deep/" * 60 + b"down.jpg",
    b"same/1.jpg",
    b"other/1.jpg",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Labeled images under odd class names, images to predict under odd names, and a run."""
    root = tmp_path_factory.mktemp("names")
    generator = np.random.default_rng(0)

    def draw(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(file, "JPEG")

    for name in CLASSES:
        for number in range(3):
            draw(root / "data" / name / f"{number}.jpg")
    for name in NAMES:
        draw(root / "inbox" / os.fsdecode(name))
    (root / "inbox" / "dangling \x1b[1m.jpg").symlink_to("nowhere")
    (root / "inbox" / "loop").symlink_to(root / "inbox")
    command = ["finetune", str(root / "data"), "--out", str(root / "run"), "--cache", str(root / "cache")]
    assert run([*command, "--backbone", "lenet5", "--weights", "none", "--workers", "1", "--quiet"]) == 0
    return root


def digests(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def rows_of(out):
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_keep_every_name(world, tmp_path, suffix, capfd):
    out, before = tmp_path / f"rows{suffix}", digests(world / "inbox")
    assert run(["predict", str(world / "run"), str(world / "inbox"), "--out", str(out), "--workers", "1"]) == 3
    rows = rows_of(out)
    expected = {os.fsencode(world / "inbox") + b"/" + name for name in (*NAMES, b"dangling \x1b[1m.jpg")}
    assert {os.fsencode(from_portable_name(row["path"])) for row in rows} == expected
    assert len(rows) == len(expected)
    assert [row["status"] for row in rows].count("failed") == 1
    assert {row["label"] for row in rows if row["status"] == "ok"} <= {*CLASSES[:-1], "%FF%FE"}
    assert digests(world / "inbox") == before
    output = capfd.readouterr()
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(output.out + output.err)


def test_paths_in_predictions_can_be_read_as_a_list(world, tmp_path):
    out, listed, again = tmp_path / "rows.jsonl", tmp_path / "list.txt", tmp_path / "again.jsonl"
    assert run(["predict", str(world / "run"), str(world / "inbox"), "--out", str(out), "--quiet"]) == 3
    names = [row["path"] for row in rows_of(out)]
    unbroken = [name for name in names if not {"\n", "\r"} & set(name)]
    listed.write_bytes("\n".join(unbroken).encode())
    assert run(["predict", str(world / "run"), f"@{listed}", "--out", str(again), "--quiet"]) == 3
    assert [row["path"] for row in rows_of(again)] == unbroken
    assert len(names) - len(unbroken) == 2


@pytest.mark.slow
def test_every_image_is_explained_within_the_output_folder(world, tmp_path, capfd):
    why, before = tmp_path / "why", digests(world)
    assert run(["predict", str(world / "run"), str(world / "inbox"), "--explain", str(why), "--workers", "1"]) == 3
    lines = [json.loads(line) for line in (why / "explain.jsonl").read_text().splitlines()]
    assert {os.fsencode(from_portable_name(line["path"])) for line in lines} == {
        os.fsencode(world / "inbox") + b"/" + name for name in NAMES
    }
    assert sorted(["explain.jsonl", *(line["file"] for line in lines)]) == sorted(os.listdir(why))  # noqa: PTH208
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    assert digests(world) == before
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(capfd.readouterr().err)


def test_the_confusion_matrix_escapes_class_names(world, capfd):
    assert run(["evaluate", str(world / "run"), str(world / "data"), "--workers", "1"]) == 0
    output = capfd.readouterr().err
    assert "Confusion" in output
    assert not {"\x1b", "\x9b"} & set(output)
    assert r"two\nlines" in output


@pytest.mark.parametrize("json_output", [False, True])
def test_control_characters_are_escaped_on_terminals(world, json_output):
    """Rows go to a terminal, standard error to the null device."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tlcli", "predict", str(world / "run"), str(world / "inbox"), "--quiet"]
    process = subprocess.Popen(command + ["--json"] * json_output, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        shown += more
    os.close(ours)
    assert process.wait() == 3
    text = shown.decode()
    assert "owned" in text
    assert not {"\x1b", "\x9b", "\x07"} & set(text)


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_html_escapes_names(world):
    text = (world / "run" / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert "alert(1)" in text
    assert "<script>alert(1)" not in text
    assert not {name for name in tags.attributes if name.startswith("on")}


def test_names_that_look_like_options_can_be_given_after_two_dashes(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world / "inbox")
    out = tmp_path / "rows.jsonl"
    assert run(["predict", str(world / "run"), "--out", str(out), "--quiet", "--", "-rf.jpg", "=cmd().jpg"]) == 0
    assert [row["path"] for row in rows_of(out)] == ["-rf.jpg", "=cmd().jpg"]


@pytest.mark.slow
def test_augment_keeps_names(world, tmp_path):
    odd = tmp_path / "odd"
    for name in map(os.fsdecode, NAMES):
        for label in ("[red]", "=cmd()"):
            path = odd / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((world / "inbox" / name).read_bytes() + label.encode())
    before = digests(odd)
    out = tmp_path / "new"
    assert run(["augment", str(odd), "--out", str(out), "--quiet", "--workers", "1"]) == 0
    assert digests(odd) == before
    with (out / "manifest.csv").open(newline="") as file:
        sources = {os.fsencode(from_portable_name(row["source"])) for row in csv.DictReader(file)}
    assert sources == {os.fsencode(path) for path in before}

"""`make gpu` writes its table whatever fails, and ends in time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def python(code):
    return [sys.executable, "-c", code]


def test_figures_before_a_failure_are_kept(gpu):
    rows = gpu.measure("stage", python('print(\'["a", "5", "1 s"]\', flush=True); raise ValueError(\'no kernel\')'), 60)
    assert rows == [["a", "5", "1 s"], ["stage", "failed", "exit code 1 ValueError: no kernel"]]


def test_a_stage_that_hangs_is_stopped(gpu):
    assert gpu.measure("stage", python("import time; time.sleep(600)"), 1) == [["stage", "failed", "stopped after 1 s"]]


def test_no_stage_begins_after_the_limit(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "LIMIT", 0.0)
    assert gpu.measure("stage", ["absent"], 60) == [["stage", "not run", "the time was used up"]]


def test_the_table_has_every_stage(gpu, monkeypatch, tmp_path):
    commands = [("good", python("print('7 passed')"), 60), ("bad", python("raise SystemExit('no GPU')"), 60)]
    monkeypatch.setattr(gpu, "stages", lambda *_: commands)
    gpu.main(tmp_path / "out" / "gpu.md")
    text = (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")
    assert "| good | 7 passed |" in text
    assert "| bad | failed | exit code 1 no GPU |" in text

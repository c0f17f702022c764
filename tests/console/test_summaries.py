"""What the summaries of commands print."""

import io

import numpy as np
import pytest
from rich.console import Console

from tlcli.console.summaries import evaluate_summary
from tlcli.console.terminal import Terminal
from tlcli.inference.metrics import Metrics


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top5_is_shown_only_if_it_can_be_wrong(classes, shown):
    names = [f"class {number}" for number in range(classes)]
    metrics = Metrics(names)
    metrics.update(np.full((1, classes), 1 / classes), np.array([0]), np.array([0]))
    terminal, file = Terminal(), io.StringIO()
    terminal.console = Console(file=file, width=120)
    evaluate_summary(terminal, metrics.result() | {"classes": names, "failures": [], "split": "test", "slices": None})
    assert ("top-5" in file.getvalue()) is shown


def test_counts_of_confusions_are_apart_from_class_names_that_are_numbers():
    metrics = Metrics(["4", "6"])
    metrics.update(np.array([[0.1, 0.9]] * 3 + [[0.9, 0.1]]), np.zeros(4, int))
    terminal, file = Terminal(), io.StringIO()
    terminal.console = Console(file=file, width=120)
    evaluate_summary(
        terminal, metrics.result() | {"classes": ["4", "6"], "failures": [], "split": "test", "slices": None}
    )
    assert "Confused  4 as 6 (3)" in file.getvalue()

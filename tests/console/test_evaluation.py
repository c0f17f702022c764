"""The confusion matrix and calibration of `evaluate`, for any terminal, number of classes and class names."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from tlcli.console.evaluation import calibration, confusion_table
from tlcli.console.terminal import Terminal
from tlcli.inference.metrics import Metrics


def printed(draw, *, width=80, **options):
    """Return what is printed to a terminal of this width."""
    terminal, file = Terminal(), io.StringIO()
    terminal.console = Console(
        file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True, **options
    )
    draw(terminal)
    return file.getvalue()


def table(confusion, classes, **options):
    return printed(lambda terminal: confusion_table(terminal, confusion, classes), **options)


def counts(text):
    """Return the counts of each row; a dot is 0."""
    rows = [line.split() for line in text.splitlines()[2:]]
    return [[0 if word in "·." else int(word) for word in row if re.fullmatch(r"\d+|·|\.", word)] for row in rows]


SMALL = [[13, 0, 2], [0, 11, 0], [7, 1, 44]]
NAMES = ["dress", "hat", "t-shirt"]


def test_without_color_the_table_has_all_counts():
    text = table(SMALL, NAMES)
    assert "\x1b" not in text
    assert counts(text) == SMALL
    assert text.splitlines()[1].split() == NAMES
    assert text.splitlines()[0] == "Confusion  rows: true class, columns: predicted class"


def test_a_larger_share_of_the_row_has_a_darker_background():
    text = table([[90, 9, 1], [0, 5, 5], [1, 0, 99]], NAMES, force_terminal=True, color_system="truecolor")
    backgrounds = {count: sum(map(int, rgb.split(";"))) for rgb, count in re.findall(r"48;2;([\d;]+)m +(\d+) ", text)}
    assert backgrounds["99"] < backgrounds["90"]
    assert backgrounds["9"] < backgrounds["1"]
    assert all("38;2;" in code for code in re.findall(r"\x1b\[([\d;]+48;2;[\d;]+)m", text)), "both colors are set"


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = table(SMALL, NAMES, force_terminal=True)
    assert not re.search(r"\x1b\[[\d;]*[34]8;", text)
    assert counts(re.sub(r"\x1b\[[\d;]*m", "", text)) == SMALL


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("classes", [2, 10, 200])
def test_it_fits_and_states_what_it_omits(width, classes):
    generator = np.random.default_rng(classes)
    confusion = generator.poisson(0.3, (classes, classes)) + np.diag(generator.integers(1, 2000, classes))
    names = [f"class number {number} of a very long name" for number in range(classes)]
    text = table(confusion.tolist(), names, width=width)
    lines = text.splitlines()
    shown = len(lines) - 2
    assert max(map(cell_len, lines[1:])) <= width
    assert shown >= 2
    if shown < classes:
        assert f"the {shown} most confused of {classes} classes" in lines[0]
        assert "others" in lines[1]
        totals = {sum(row) for row in confusion.tolist()}
        # Skip the number of the row, and those in its name.
        assert all(sum(row[-shown - 1 :]) in totals for row in counts(text))
    else:
        assert "most confused" not in text


def test_the_most_confused_classes_have_the_most_errors():
    confusion = np.diag([50] * 40)
    confusion[7, 31] = 9
    confusion[31, 3] = 5
    text = table(confusion.tolist(), [f"n{number}" for number in range(40)], width=45)
    assert [name for name in ("n3", "n7", "n31") if re.search(rf"\b{name}\b", text)] == ["n3", "n7", "n31"]


def test_classes_that_are_numbers_are_in_the_order_of_their_values():
    text = table(np.diag([1, 2, 3]).tolist(), ["1", "10", "2"])
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["1", "2", "10"]
    assert counts(text)[1][-3:] == [0, 3, 0]


def test_untrusted_names_are_escaped_and_keep_the_columns():
    names = ["[red]x[/] \x1b[31m", "two\nlines", "\u65e5\u672c\u8a9e" * 9, "\u202egpj \udcff"]
    text = table(np.diag([1, 2, 3, 4]).tolist(), names)
    assert not {"\x1b", "\u202e", "\udcff"} & set(text)
    lines = text.splitlines()
    assert len(lines) == 6
    assert "[red]x[/]" in text
    assert len({cell_len(line) for line in lines[2:]}) == 1


def test_ascii_terminals_get_only_ascii(monkeypatch):
    class Ascii(io.StringIO):
        encoding = "ascii"

    terminal = Terminal()
    terminal.console = Console(file=(file := Ascii()), width=60, soft_wrap=True)
    confusion_table(terminal, SMALL, ["d" * 99, *NAMES[1:]])
    calibration(terminal, metrics_of([0.9] * 60, 54))
    assert file.getvalue().isascii()


def metrics_of(confidences, correct):
    """Metrics of images with these confidences, the first `correct` of which are predicted correctly."""
    metrics = Metrics(["yes", "no"])
    for number, confidence in enumerate(confidences):
        row = np.array([[confidence, 1 - confidence]])
        metrics.update(row, np.array([0 if number < correct else 1]), np.array([0]))
    return metrics.result()


@pytest.mark.parametrize(
    ("confidences", "correct", "words"),
    [
        ([0.9] * 100, 90, "error 0.0 % (ECE), which is low"),
        ([0.9] * 100, 60, "error 30.0 % (ECE), mostly overconfident"),
        ([0.6] * 100, 100, "error 40.0 % (ECE), mostly underconfident"),
        ([0.6] * 50 + [0.95] * 50, 78, "overconfident for some images and underconfident for others"),
        ([0.9] * 3, 3, "unreliable with only 3 images"),
        ([0.9], 1, "unreliable with only 1 image"),
    ],
)
def test_calibration_in_words(confidences, correct, words):
    assert words in printed(lambda terminal: calibration(terminal, metrics_of(confidences, correct)))


def test_one_bar_per_bin_of_confidence_and_gaps_for_empty_bins():
    text = printed(lambda terminal: calibration(terminal, metrics_of([0.55] * 30 + [0.95] * 30, 30)))
    assert re.search(r"accuracy █ {5}▁ at confidence 0\.55 to 0\.95", text)

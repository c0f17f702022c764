from __future__ import annotations

import pytest

from tlcli.console.time_left import LONGEST, TimeLeft, clock


def left_at_the_end(elapsed_and_done, total):
    estimate = TimeLeft()
    for elapsed, done in elapsed_and_done:
        found = estimate.seconds(elapsed, done, total)
    return found


def test_a_steady_task():
    assert left_at_the_end([(second / 4, second) for second in range(1, 41)], 100) == pytest.approx(15)


def test_a_slow_start_does_not_count():
    steps = [(second / 10, 0) for second in range(1, 20)] + [(2 + second / 10, second) for second in range(1, 31)]
    assert left_at_the_end(steps, 330) == pytest.approx(30)


def test_a_change_within_a_long_task_is_noticed():
    steps = [(second, second) for second in range(1, 1000)]
    steps += [(999 + second, 999 + second / 10) for second in range(1, int(LONGEST) + 11)]
    assert left_at_the_end(steps, 2006) == pytest.approx(10_000, rel=0.02)


def test_waiting_for_the_first_step_does_not_count():
    assert left_at_the_end([(12.0, 4)], 90) is None
    assert left_at_the_end([(12.0, 4), (13.0, 14)], 94) == pytest.approx(8)


def test_nothing_is_told_without_progress():
    assert left_at_the_end([(1.0, 0), (2.0, 0)], 100) is None


def test_no_more_measurements_are_kept_than_needed():
    estimate = TimeLeft()
    for step in range(100_000):
        estimate.seconds(step / 1000, step, 100_000)
    assert len(estimate._measured) < 1000


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (62.9, "01:02"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text

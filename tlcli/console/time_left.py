"""Estimate how long a task will still take."""

from __future__ import annotations

from collections import deque

from rich.progress import ProgressColumn, Task, TaskID
from rich.text import Text

INTERVAL = 0.1
"""Seconds between two measurements."""
FEWEST = 0.01
"""Fraction of the steps before which there is no estimate."""
LONGEST = 60.0
"""Seconds that the rate is measured over, at most."""


class TimeLeft:
    """Estimate the time left by the rate in the second half of the time so far, because tasks start slowly.

    Decoder processes start one by one, and the first batches of a network take longer than the others.
    """

    def __init__(self) -> None:
        self._measured: deque[tuple[float, float]] = deque()

    def seconds(self, elapsed: float, done: float, total: float) -> float | None:
        """Return the seconds left, or None if there was too little progress.

        Args:
            elapsed: Seconds since the start.
            done: Steps done so far.
            total: Number of all steps.
        """
        measured = self._measured
        if not done:  # waiting for the first step, such as for an export, is no measure of the others
            return None
        if not measured or elapsed - measured[-1][0] >= INTERVAL:
            measured.append((elapsed, done))
        since = max(elapsed / 2, elapsed - LONGEST)
        while len(measured) > 1 and measured[1][0] <= since:
            measured.popleft()
        then, before = measured[0]
        if done <= max(before, FEWEST * total):
            return None
        return (total - done) * (elapsed - then) / (done - before)


class TimeLeftColumn(ProgressColumn):
    """The time left; of a finished task, the time that it took."""

    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[TaskID, TimeLeft] = {}

    def render(self, task: Task) -> Text:
        """Return minutes and seconds, with hours if there are some."""
        elapsed = task.elapsed or 0.0
        seconds: float | None
        if task.finished:
            seconds = task.finished_time
        else:
            left = self._tasks.setdefault(task.id, TimeLeft())
            seconds = left.seconds(elapsed, task.completed, task.total or 0.0)
        style = "progress.elapsed" if task.finished else "progress.remaining"
        return Text("--:--" if seconds is None else clock(seconds), style=style)


def clock(seconds: float) -> str:
    """Format a duration as 1:02:03, or 02:03 if it is below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"

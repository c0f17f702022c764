"""Compare the time left that each long command shows after a tenth of its work with the time that it then takes.

usage: python benchmarks/estimates.py DATA      with test images

The commands run on a terminal, with an empty cache. Tasks of less than five seconds are left out.
"""

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import TLCLI, machine, table

BAR = re.compile(r"([A-Z][a-z]+) +([\d,]+)/([\d,]+) .*?/s (\d+):(\d\d)(?!\d)")
"""A progress bar: the task, steps done, all steps, and the minutes and seconds left."""
SHORTEST = 5.0
"""Seconds."""


def frames_of(command, environment):
    """Run a command on a terminal; return when each bar was shown, its task, the share done, and the seconds left."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        frames = []
        while True:
            try:
                text = os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the command closed the terminal
                break
            now = time.monotonic()
            for name, done, total, minutes, seconds in BAR.findall(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)):
                share = int(done.replace(",", "")) / int(total.replace(",", ""))
                frames.append((now, name, share, 60 * int(minutes) + int(seconds)))
    os.close(ours)
    if process.returncode not in {0, 3}:  # 3: check found something
        sys.exit(f"{command} failed with {process.returncode}")
    return frames


def rows_of(name, frames):
    """Return a row for each long task: at a tenth of its work, the seconds shown and those that it took from there."""
    rows = []
    for task in dict.fromkeys(frame[1] for frame in frames):
        own = [frame for frame in frames if frame[1] == task]
        first = next((frame for frame in own if 0.1 <= frame[2] < 1), None)
        end = next((frame for frame in own if frame[2] == 1), None)
        if first is None or end is None or end[0] - own[0][0] < SHORTEST:
            continue
        took = end[0] - first[0]
        rows.append([name, task, f"{100 * first[2]:.0f} %", f"{first[3]} s", f"{took:.1f} s", f"{first[3] / took:.2f}"])
    return rows


def main(data):
    print(machine(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "augmented"
        environment = os.environ | {"TLCLI_CACHE": str(Path(folder) / "cache"), "TERM": "xterm", "COLUMNS": "120"}
        for arguments in (
            ["cache-features", data],
            ["finetune", data, "--out", run, "--freeze", "blocks.5", "--epochs", "4"],
            ["predict", run, data, "--out", Path(folder) / "rows.csv"],
            ["evaluate", run, data, "--split", "all"],
            ["check", data, "--size", "192"],
            ["augment", data, "--out", out, "--copies", "2"],
        ):
            found = rows_of(arguments[0], frames_of([*TLCLI, *map(str, arguments)], environment))
            rows += found
            print(found, flush=True)
    print(table(["command", "task", "done", "shown", "took", "ratio"], rows))


main(sys.argv[1])

"""Output on a real terminal."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tlcli.console.terminal import Terminal, printable

TLCLI = str(Path(sys.executable).with_name("tlcli"))


def on_a_terminal(arguments, stdout=subprocess.DEVNULL, **environment):
    """Return what a command writes to stderr, a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [TLCLI, *arguments],
        stdout=stdout,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # raised by Linux when the other end is closed
        while chunk := os.read(ours, 65536):
            seen += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return seen.decode()


def test_progress_bar_with_rate_and_time(trained, photos):
    seen = on_a_terminal(["evaluate", str(trained.run), str(photos)])
    assert "Evaluate" in seen
    assert "45/45" in seen
    assert "━" in seen
    assert "/s" in seen
    assert "\x1b[33m" in seen, "the warning is yellow"


def test_rows_on_stdout_are_not_mixed_with_the_progress_bar(trained, photos, tmp_path):
    with (tmp_path / "rows.csv").open("wb") as file:
        seen = on_a_terminal(["predict", str(trained.run), str(photos / "disc")], stdout=file)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 16
    assert "00.jpg" not in seen


def test_no_color_is_respected(trained, photos):
    seen = on_a_terminal(["evaluate", str(trained.run), str(photos)], NO_COLOR="1")
    assert not any(f"\x1b[{code}m" in seen for code in (*range(30, 38), *range(90, 98)))
    assert "45/45" in seen


@pytest.mark.parametrize("name", ["[/red]", "a\nb", "\x1b[31mred", "\udcff", "é 🙂 [bold]"])
def test_names_are_never_markup(name, capfd):
    terminal = Terminal()
    terminal.note(f"before {name} after")
    terminal.warn(name)
    output = capfd.readouterr().err
    assert f"before {printable(name)} after" in output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 2


def test_quiet_keeps_warnings(capfd):
    terminal = Terminal(quiet=True)
    terminal.note("chatter")
    with terminal.task("Work", 3) as advance:
        advance(3)
    terminal.warn("mind the gap")
    assert capfd.readouterr().err == "warning: mind the gap\n"

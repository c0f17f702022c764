"""tlcli benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import BenchmarkSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli benchmark runs/photos photos/test")
@takes(BenchmarkSettings)
def benchmark(settings: BenchmarkSettings, terminal: Terminal) -> None:
    """Measure a run in every engine and precision of this machine: speed, latency, memory, accuracy, and agreement."""
    from tlcli.commands.benchmark import benchmark as run
    from tlcli.console.benchmark import benchmark_table

    result = run(settings, terminal)
    if not terminal.json_output:
        benchmark_table(terminal, result)
    finish(terminal, result, failed=result["failed"] if result["source"] == "input" else 0)

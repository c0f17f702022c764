"""Print the result of `benchmark`: the table to stdout, notes to stderr."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tlcli.console.listings import PIPE_WIDTH
from tlcli.console.summaries import SHOWN_FAILURES, percent
from tlcli.console.terminal import Terminal
from tlcli.engines.onnx_session import EXPORT_ENGINES
from tlcli.storage.files import megabytes

UNSTEADY = 0.25
"""Spread of the reference's rounds, as a share of their median, above which a note warns about other programs."""
FEW_IMAGES = 100
"""Images below which the 99th percentile is little more than the slowest image."""


def benchmark_table(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print a row per engine, the fastest first, and one for decoding; then what the numbers mean."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("engine", no_wrap=True)
    for heading in ("images/s", "p50 ms", "p90 ms", "p99 ms", "start", "file", "memory", "accuracy", "agreement"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["engines"]:
        table.add_row(
            _name(row),
            *_speed(row),
            f"{row['start_seconds']:.1f} s",
            megabytes(row["bytes"]),
            megabytes(row["peak_memory_bytes"]),
            percent(row["accuracy"]),
            "reference" if _is_reference(row, result) else percent(row["agreement"]),
        )
    if result["decoding"] is not None:
        table.add_row("decoding", *_speed(result["decoding"]), style="dim")
    Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH).print(table)  # nothing is cut off
    _notes(terminal, result)


def _notes(terminal: Terminal, result: dict[str, Any]) -> None:
    for row in result["unavailable"]:
        terminal.note(f"Left out  {_name(row)}: {row['reason']}")
    for failure in result["failures"][:SHOWN_FAILURES]:
        terminal.note(f"  failed: {failure['path']}: {failure['error']}")
    if len(result["failures"]) > SHOWN_FAILURES:
        terminal.note(f"  ... and {len(result['failures']) - SHOWN_FAILURES:,} more")
    source = {"input": "INPUT", "stored predictions": "the run's stored predictions"}.get(
        result["source"], "random pixels"
    )
    terminal.note(f"Images    {result['images']:,} of {source}, {' x '.join(map(str, result['input']))}")
    reference = next(row for row in result["engines"] if _is_reference(row, result))
    if result["stored"]:
        same = percent(reference["stored_agreement"])
        terminal.note(f"Stored    {_name(reference)} reproduces {same} of {result['stored']:,} stored predictions")
    cores = "1 core" if result["cores"] == 1 else f"{result['cores']} cores"
    terminal.note(f"Speed     images/s on {cores}, without decoding; p50, p90, p99 of one image at a time, on one core")
    _caveats(terminal, result, reference)
    terminal.note(f"Time      {terminal.elapsed():.1f} s")


def _caveats(terminal: Terminal, result: dict[str, Any], reference: dict[str, Any]) -> None:
    """Print what makes some of the numbers less reliable."""
    fewer = [row for row in result["engines"] if row["device"] == "cpu" and row["threads"] < result["cores"]]
    for row in fewer:
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
        terminal.note(f"          {_name(row)}: images/s on {threads}, the setting of this shell (OMP_NUM_THREADS)")
    low, high = min(reference["rounds"]), max(reference["rounds"])
    if high - low > UNSTEADY * reference["images_per_second"]:
        terminal.note(
            f"Unsteady  {low:.0f} to {high:.0f} images/s in {_name(reference)}: close other programs, or give more "
            "--seconds"
        )
    if few := [_name(row) for row in result["engines"] if row["milliseconds"]["images"] < FEW_IMAGES]:
        terminal.note(f"Few       p99 is of fewer than {FEW_IMAGES} images for {'; '.join(few)}: give more --seconds")


def _name(row: dict[str, Any]) -> str:
    return f"{EXPORT_ENGINES.get(row['engine'], 'PyTorch')}, {row['precision']}, {row['device']}"


def _speed(row: dict[str, Any]) -> list[str]:
    milliseconds = row["milliseconds"]
    return [f"{row['images_per_second']:,.1f}", *(f"{milliseconds[name]:.1f}" for name in ("p50", "p90", "p99"))]


def _is_reference(row: dict[str, Any], result: dict[str, Any]) -> bool:
    return all(row[key] == value for key, value in result["reference"].items())

"""Settings of `benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.processes import cores
from tlcli.settings.checks import at_least, one_of
from tlcli.settings.columns import TableColumns
from tlcli.settings.common_options import RUN_ARGUMENT, WORKERS_OPTION
from tlcli.settings.compute import ENGINES, check_device
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.options import HARDWARE, Option, OptionGroup
from tlcli.storage.urls import Location

MEASURED_ENGINES = tuple(engine for engine in ENGINES if engine != "auto")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Settings of `benchmark`."""

    run: Location = field(metadata=RUN_ARGUMENT)
    inputs: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Images, folders, tables, tars, @list.txt, or - for a list on standard input; labeled images, as for "
            "evaluate, also give the accuracy.",
            metavar="INPUT...",
            positional=True,
            unset="the images whose predictions the run stores, or random pixels if these are gone",
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    columns: TableColumns = field(
        default_factory=TableColumns,
        metadata=OptionGroup(settings=TableColumns, without=("group_column",)),
    )
    """Columns of an input that is a table."""
    images: int = field(
        default=200, metadata=Option(help="Use at most N images, drawn at random, always the same.", metavar="N")
    )
    seconds: float = field(
        default=5.0,
        metadata=Option(
            help="Time to measure each engine, and decoding. Starting an engine and predicting all images come on top.",
            metavar="SECONDS",
        ),
    )
    engine: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Measure only this engine. Repeatable.",
            metavar="|".join(MEASURED_ENGINES),
            panel=HARDWARE,
            unset="all",
        ),
    )
    device: str = field(
        default="auto",
        metadata=Option(
            help="Device to compute on; auto measures the CPU, and a GPU if there is one.",
            metavar="auto|cpu|cuda|cuda:1|mps",
            panel=HARDWARE,
        ),
    )
    workers: int | None = field(default=None, metadata=WORKERS_OPTION)

    def __post_init__(self) -> None:
        for engine in self.engine:
            one_of("--engine", engine, MEASURED_ENGINES)
        at_least("--images", self.images, 1)
        at_least("--workers", self.workers, 1)
        check_device(self.device)
        if self.engine and "torch" not in self.engine and self.device not in {"auto", "cpu"}:
            raise UsageError(f"--engine {self.engine[0]} runs on a CPU, not on {self.device}. Use --engine torch.")
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"--seconds is {self.seconds:g}; expected more than 0.")
        if not self.inputs and (self.columns.given() or self.filters.options()):
            option = next(iter(self.columns.given()), "--include" if self.filters.include else "--exclude")
            raise UsageError(f"{option} has no effect without INPUT. Remove it, or give images.")

    def worker_count(self) -> int:
        """Return how many decoder processes to start: `workers`, or one per available core."""
        return cores() if self.workers is None else self.workers

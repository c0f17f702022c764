"""Settings of `serve`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least, port_number
from tlcli.settings.common_options import LOCAL, RUN_ARGUMENT, SERVER, WORKERS_OPTION
from tlcli.settings.compute import check_device
from tlcli.settings.options import HARDWARE, Option
from tlcli.storage.urls import Location

SHORTEST_TOKEN = 16
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""Characters that a header `Authorization: Bearer` may have (RFC 6750)."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of `serve`."""

    run: Location = field(metadata=RUN_ARGUMENT)
    host: str = field(
        default=LOCAL,
        metadata=Option(
            help="Address to listen on; other than the default, anybody on the network who has the token can send "
            "images.",
            metavar="ADDRESS",
            panel=SERVER,
        ),
    )
    port: int = field(
        default=8000, metadata=Option(help="Port to listen on; 0 takes any free one.", metavar="P", panel=SERVER)
    )
    token: str | None = field(
        default=None,
        metadata=Option(
            help="The token that requests must carry.", metavar="T", panel=SERVER, unset="a new random one"
        ),
    )
    open: bool = field(
        default=False,
        metadata=Option(help="Answer requests without a token as well.", flag="--no-token", panel=SERVER),
    )
    page: bool = field(
        default=True,
        metadata=Option(help="Serve no page, only the interface.", flag="--no-page", panel=SERVER, negated=True),
    )
    device: str = field(
        default="cpu",
        metadata=Option(
            help="Device to compute on; others than the CPU take seconds to start. auto uses CUDA if available.",
            metavar="auto|cpu|cuda|cuda:1|mps",
            panel=HARDWARE,
        ),
    )
    workers: int | None = field(default=None, metadata=WORKERS_OPTION)

    def __post_init__(self) -> None:
        port_number("--port", self.port)
        at_least("--workers", self.workers, 1)
        check_device(self.device)
        if self.token is not None and self.open:
            raise UsageError("--token and --no-token cannot be combined.")
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not TOKEN.fullmatch(self.token)):
            raise UsageError(
                f"--token has {len(self.token)} characters; expected at least {SHORTEST_TOKEN}, of letters, digits, "
                "and -._~+/=. Without it, a random one is made."
            )

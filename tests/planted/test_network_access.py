"""Commands connect to nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

AUDITED = """
import sys
def audit(event, arguments):
    if event in {"socket.bind", "socket.listen", "socket.connect", "socket.getaddrinfo"}:
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(audit)
from tlcli.cli.main import run
from tlcli.errors import ArtifactError
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_no_network_access(photos, made, tmp_path):
    """Commands open no sockets; decoder processes import nothing that could.

    Libraries with telemetry store data in the home directory before sending it, so nothing may appear there.
    """
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    for command in (
        ["finetune", photos, "--size", "64", "--out", tmp_path / "run", "--cache", tmp_path / "cache"],
        ["predict", tmp_path / "run", photos],
        ["predict", tmp_path / "run", photos, "--engine", "torch"],
        ["backbones", "resnet18"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", AUDITED, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert "NETWORK" not in done.stderr
    assert not list(home.rglob("*"))

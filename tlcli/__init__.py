"""Transfer learning from the command line."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`tlcli.__version__`, looked up when asked for: reading package metadata takes longer than all of --help."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tlcli")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

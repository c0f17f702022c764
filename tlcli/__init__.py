"""Transfer learning from the command line."""

from importlib.metadata import version

__version__ = version("tlcli")

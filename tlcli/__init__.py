"""Transfer learning from the command line, and from Python: each command is a function that takes its settings.

Names are imported on first use, from the modules in `__init__.pyi`, so `import tlcli` is fast.
"""

from __future__ import annotations

import lazy_loader

_getattr, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":  # reading package metadata takes longer than all of --help
        from importlib.metadata import version

        return version("tlcli")
    return _getattr(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

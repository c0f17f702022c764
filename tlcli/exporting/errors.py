"""What other libraries raise while a network is exported, as an error of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tlcli.errors import ArtifactError, TlcliError, out_of_memory


@contextlib.contextmanager
def refusing(what: str, instead: str) -> Iterator[None]:
    """Have whatever goes wrong in the block say `what` failed, why, in a line, and what to do `instead`.

    Raises:
        ArtifactError: something went wrong.
        MemoryError: memory ran out.
    """
    try:
        yield
    except (OSError, TlcliError):  # which say what to do
        raise
    except Exception as error:  # their types have no common base
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise ArtifactError(f"{what} ({_reason(error)}). Nothing was written. {instead}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

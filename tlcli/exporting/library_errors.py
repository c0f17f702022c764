"""Convert exceptions that other libraries raise during an export to a tlcli error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tlcli.errors import ArtifactError, TlcliError, out_of_memory


@contextlib.contextmanager
def library_errors(problem: str, remedy: str) -> Iterator[None]:
    """Convert any exception of a library to an ArtifactError.

    Args:
        problem: What failed, for the message; the reason is appended in one line.
        remedy: What to do instead.

    Raises:
        ArtifactError: The block failed.
        MemoryError: Memory ran out.
    """
    try:
        yield
    except (OSError, TlcliError):  # these are already clear to the user
        raise
    except Exception as error:  # library exceptions have no common base class
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise ArtifactError(f"{problem} ({_reason(error)}). Nothing was written. {remedy}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

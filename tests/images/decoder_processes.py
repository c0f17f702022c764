"""What the tests of decoder processes look at: running processes, and the `numbered` images."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def processes():
    """Return the parent of each running process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def children(parent=None):
    """Return the running processes that `parent` (default: this process) started."""
    return {process for process, its_parent in processes().items() if its_parent == (parent or os.getpid())}


def all_end(some):
    """Return whether these processes end within some seconds."""
    for _ in range(500):
        if not some & processes().keys():
            return True
        time.sleep(0.02)
    return False


def wait_for_decoding():
    """Wait until a decoder has started with the largest image, which takes it seconds."""
    time.sleep(0.3)


def number_of(image):
    """Return which of the `numbered` images this is."""
    pixels = np.frombuffer(image.pixels, np.uint8).reshape(16, 16, 3)
    assert (pixels == pixels[0, 0]).all()
    return int(pixels[0, 0, 0])

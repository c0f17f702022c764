"""Files that would execute code if they were unpickled, and how commands train a small network."""

from __future__ import annotations

import os

import torch

NETWORK = ["--backbone", "lenet5", "--weights", "none", "--workers", "1"]


class Payload:
    """Calls `os.system` when it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch '{self.sentinel}'",)


def torch_file(path, sentinel):
    torch.save({"conv1.weight": Payload(sentinel)}, path)

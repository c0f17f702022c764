"""Runs tlcli commands in forked copies of itself, so that a trial costs the command alone, not its imports.

The library of `interpose.c` is loaded before it. Orders come as JSON, a line each; each is answered by how it ended.
Nothing here changes what is written or in which order, but pieces are small and checkpoints frequent, so that there is
more to interrupt.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

import tlcli.cli.main as cli
from tlcli.commands import export, predict
from tlcli.engines import onnx_export
from tlcli.exporting import onnx_file
from tlcli.exporting.calibrated_network import input_name
from tlcli.features import store
from tlcli.features.fingerprint import weights_digest
from tlcli.images import loader
from tlcli.images.worker import DecodedImage, read_image
from tlcli.training.tail import checkpoints

LIMIT = 120
"""Seconds after which a command is taken to hang."""


class Inline:
    """A decoding process that is none: it reads images and writes nothing, so it needs no process to be killed."""

    def start(self, order):
        self._order = order

    def ask(self, request: tuple[str, int], limit: float) -> DecodedImage:
        del limit
        return read_image(request[0], self._order, request[1])

    def end(self):
        """Nothing to end."""

    kill = end


def keep_exports(folder: Path):
    """Have each network exported to ONNX once: that takes seconds, and writes nothing."""
    export = onnx_export._export

    def kept(network: torch.nn.Module, pixels: torch.Tensor) -> bytes:
        path = folder / f"{hashlib.sha256(weights_digest(network).encode()).hexdigest()}.onnx"
        if not path.exists():
            path.write_bytes(export(network, pixels))
        return path.read_bytes()

    onnx_export._export = kept


def keep_exported(folder: Path):
    """The same for `export`, whose networks are made once, but compared each time."""
    make = export._onnx

    def kept(run, backbone, settings, images, report):
        path = folder / f"{run.info['sha256']}.exported"
        if not path.exists():
            path.write_bytes(make(run, backbone, settings, images, report)[0])
        content = path.read_bytes()
        return content, onnx_file.run_onnx_file(content, input_name(with_preprocessing=False), run.preprocessing)

    export._onnx = kept


def make_cheap(folder: Path):
    loader._Child = Inline
    store.FLUSH_BYTES = 2000
    predict.FLUSH = 2
    checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
    keep_exports(folder)
    keep_exported(folder)


def obey(library: ctypes.CDLL, order: dict[str, Any]):
    """Run the command, and end."""
    code = 1
    try:
        signal.alarm(LIMIT)
        descriptor = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        trace = os.open(order["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        root = os.fsencode(order["root"])
        library.faults_arm(root, order["kind"], ctypes.c_long(order["at"]), trace, order["flock"])
        code = cli.run(order["arguments"])
        library.faults_arm(b"", 0, ctypes.c_long(-1), -1, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        Path(order["modules"]).write_text(json.dumps(list(sys.modules)))
    except BaseException:  # noqa: BLE001 - a bug, whose traceback the trial looks for
        library.faults_arm(b"", 0, ctypes.c_long(-1), -1, 0)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main():
    folder = Path(sys.argv[1])
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    torch.set_num_threads(1)
    make_cheap(folder)
    print("ready", flush=True)
    tried: set[str] = set()
    for line in sys.stdin:
        order = json.loads(line)
        order["modules"] = str(folder / f"modules-{os.getpid()}.json")
        if not (child := os.fork()):
            obey(library, order)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(FileNotFoundError):  # what a command imported, the next ones need not
            names = set(json.loads(Path(order["modules"]).read_text())) - tried
            tried |= names
            for name in names - sys.modules.keys():
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            Path(order["modules"]).unlink()
        print(json.dumps(status), flush=True)


if __name__ == "__main__":
    main()

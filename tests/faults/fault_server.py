"""Server process that runs tlcli commands in forked copies of itself, so that a trial does not pay for the imports.

Started with the library of `interpose.c` preloaded. Reads one JSON request per line and answers each with an exit code.
Commands write the same files in the same order as usual, but in small pieces and with frequent checkpoints, so that
there are more operations to interrupt.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
import typer

import tlcli.cli.main as cli
from tlcli.commands import export
from tlcli.engines import onnx_export
from tlcli.exporting import onnx_file
from tlcli.exporting.network_input import NetworkInput
from tlcli.features import store
from tlcli.features.fingerprint import weights_digest
from tlcli.images import loader
from tlcli.images.worker import DecodedImage, read_image
from tlcli.inference import predictor, rows
from tlcli.training.tail import checkpoints

TIME_LIMIT = 120
"""Seconds after which a command counts as hanging."""


class InlineDecoder:
    """Stands in for a decoder process: decodes in this process, since decoders write no files."""

    def start(self, options):
        self._options = options

    def request(self, request: tuple[str, int], limit: float) -> DecodedImage:
        del limit
        return read_image(request[0], self._options, request[1])

    def kill(self):
        """Do nothing: there is no process."""

    close = kill


def write_whole(path: Path, content: bytes):
    """Write a file that other servers may be reading or writing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def cache_onnx_engines(folder: Path):
    """Export each network to ONNX only once: that takes seconds and writes no files."""
    export = onnx_export._export

    def cached(network: torch.nn.Module, pixels: torch.Tensor, outputs: Sequence[str]) -> bytes:
        key = hashlib.sha256(f"{weights_digest(network)} {outputs}".encode()).hexdigest()
        path = folder / f"{key}.onnx"
        if not path.exists():
            write_whole(path, export(network, pixels, outputs))
        return path.read_bytes()

    onnx_export._export = cached


def cache_onnx_files(folder: Path):
    """The same for the `export` command: the ONNX file is made once, but checked every time."""
    make = export._export_file

    def cached(run, backbone, settings, images, report):
        path = folder / f"{run.info['sha256']}.exported"
        if not path.exists():
            write_whole(path, make(run, backbone, settings, images, report)[0])
        content = path.read_bytes()
        network_input = NetworkInput(preprocessing=run.preprocessing, takes_pixels=False)
        return content, onnx_file.load_onnx(content, network_input, ("logits", "probabilities"))

    export._export_file = cached


def build_once(folder: Path):
    """Build the command line in this process, and compile the page of a report only once."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(cli.app)
    compiled = jinja2.FileSystemBytecodeCache(str(folder))
    jinja2.Environment.__init__ = functools.partialmethod(jinja2.Environment.__init__, bytecode_cache=compiled)


def speed_up(exports: Path):
    loader._DecoderProcess = InlineDecoder
    store.FLUSH_BYTES = 2000
    rows.ROWS_PER_BATCH = predictor.COMPARED_TOGETHER = 2
    checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
    cache_onnx_engines(exports)
    cache_onnx_files(exports)
    build_once(exports)


def run_request(library: ctypes.CDLL, request: dict[str, Any]):
    """Run the command of a request in this forked process, then exit."""
    code = 1
    try:
        signal.alarm(TIME_LIMIT)
        descriptor = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        trace = os.open(request["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        root = os.fsencode(request["root"])
        library.faults_arm(root, request["kind"], ctypes.c_long(request["at"]), trace, request["flock"])
        code = cli.run(request["arguments"])
        library.faults_arm(b"", 0, ctypes.c_long(-1), -1, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        Path(request["modules"]).write_text(json.dumps(list(sys.modules)))
    except BaseException:  # noqa: BLE001 - a bug: the trial looks for its traceback
        library.faults_arm(b"", 0, ctypes.c_long(-1), -1, 0)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main():
    folder = Path(sys.argv[1])
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    torch.set_num_threads(1)
    speed_up(Path(sys.argv[2]))
    gc.freeze()  # a collection would copy the pages of all these objects in each forked process
    print("ready", flush=True)
    seen: set[str] = set()
    for line in sys.stdin:
        request = json.loads(line)
        request["modules"] = str(folder / f"modules-{os.getpid()}.json")
        if not (child := os.fork()):
            run_request(library, request)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(FileNotFoundError):  # import it here, so that the next commands find it imported
            names = set(json.loads(Path(request["modules"]).read_text())) - seen
            seen |= names
            for name in names - sys.modules.keys():
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            Path(request["modules"]).unlink()
        print(json.dumps(status), flush=True)


if __name__ == "__main__":
    main()

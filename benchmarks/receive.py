"""Measure how many images per second one process can receive, batch and store: an upper limit for GPUs.

usage: python benchmarks/receive.py [DECODERS...]
The decoders use no core: each waits as long as decoding takes (1.84 ms) and sends the same pixels. The network returns
zeros. What remains is the work of the main process of cache-features, whose core time per image is printed.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from measure import machine, table

from tlcli.engines.torch_engine import map_in_torch_threads
from tlcli.features.extraction import Extraction, MissingFeatures, extract
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.images import loader
from tlcli.images.preprocess import display_preprocessing
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Silent

DECODING, IMAGES, SIZE, WIDTH = 0.00184, 8000, 224, 1280
WAITING = f"""
import hashlib, os, sys, time
sys.path[:] = {{path!r}}
from tlcli.images import worker
from tlcli.storage.stored import Stamp
pixels = os.urandom({SIZE} * {SIZE} * 3)
def read_image(path, order, view=0):
    time.sleep({DECODING})
    digest = hashlib.sha256(path.encode()).digest()
    return worker.DecodedImage(digest=digest, stamp=Stamp(size=1, modified=2), read=3, pixels=pixels)
worker.read_image = read_image
worker.run_worker()
"""


def core_time():
    """Return the user and system seconds of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


loader._WORKER_CODE = WAITING
rows, gpu = [], SimpleNamespace(type="cuda")  # one thread, 256 images per batch
paths = [str(number) for number in range(IMAGES)]
for decoders in [int(word) for word in sys.argv[1:]] or [2, 8, 16]:
    size = display_preprocessing(SIZE)
    with (
        tempfile.TemporaryDirectory() as folder,
        loader.ImageLoader(DecodeOptions(preprocessing=size), workers=decoders, ahead=1783) as opened,
    ):
        opened.start()
        store = FeatureStore(Path(folder), {"of": "nothing"}, (WIDTH,))
        started, before = time.monotonic(), core_time()
        extract(
            MissingFeatures(
                name="Features",
                store=store,
                paths=paths,
                todo=[(number, 0) for number in range(IMAGES)],
                extraction=Extraction(digests=[None] * IMAGES),
            ),
            open_prefix=lambda: (
                lambda batches: map_in_torch_threads(lambda b: np.zeros((len(b), WIDTH), np.float32), batches, gpu)
            ),
            loader=opened,
            image_shape=size.shape,
            batch_size=256,
            memo=Memo(Path(folder), Silent()),
            report=Silent(),
        )
        taken = time.monotonic() - started
        own, system = (1e6 * (now - then) / IMAGES for now, then in zip(core_time(), before, strict=True))
    ideal = f"{decoders / DECODING:,.0f}"
    rows.append([decoders, f"{IMAGES / taken:,.0f}", ideal, f"{own:.0f} + {system:.0f} µs"])
print(machine(), end="\n\n")
print(table(["decoders", "images per second", "limit by decoding", "core time per image (user + system)"], rows))

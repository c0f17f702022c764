"""A decoding process: reads an image's file, hashes it, decodes it, brings it to size.

It imports torch only to augment. It talks through two pipes of its own, so that it can be killed at any time
without harm to the others. A request is a path and a view; an answer is a `Image`, sent as JSON and bytes: nothing
that comes from whoever decodes strangers' images is unpickled. It ends when its parent does.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import io
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import BinaryIO, NamedTuple, TypeVar, cast

from PIL import Image

from tlcli.images import augment
from tlcli.images.decode import Size, UndecodableError, decode, dimensions, measure_intensity, upright_dimensions
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing, fit_image, oversampling
from tlcli.settings.augmentation import Augmentation
from tlcli.storage.reading import UnreadableError, open_image_file

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h

NICE = 10
"""How much an augmenting process stands back for others."""

MAX_BYTES = 2**30
"""Larger files are refused unread."""

MEMORY_LIMIT = 6 * 2**30
"""Bytes of memory that one process may take: enough for an image of `MAX_PIXELS` with transparency."""

PNG_LEVEL = 1
"""How hard to compress; noise hardly shrinks, and higher levels take up to twice as long."""

ImageRequest = tuple[str, int]
"""The path of an image, and which view of it; 0 is the plain image."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What a worker does with every request it is sent."""

    preprocessing: Preprocessing | None = None
    """How to bring images to size; None only hashes them."""
    measure: str | None = None
    """Instead, find out `size`, from the header alone and without a digest, or `upright`, the size once it is turned
    upright; or `intensity`: the range of a gray image with more than 8 bits; others are only hashed."""
    intensity: IntensityRange | None = None
    """What becomes black and white of those, where there is no preprocessing to say it."""
    png: bool = False
    """Instead, give views as PNG files, in their own size; view 0 is decoded and not given."""
    augmentation: Augmentation | None = None
    """What makes views above 0; None makes them all plain."""
    seed: int = 0
    """Of the views."""
    known: frozenset[tuple[bytes, int]] = frozenset()
    """Digest and view of images whose pixels nobody needs."""


class DecodedImage(NamedTuple):
    """What became of one file."""

    digest: bytes | None = None
    """SHA-256 of its bytes; None if they could not be read."""
    size: int = 0
    """Bytes."""
    modified: int = 0
    """Time of the last change, in nanoseconds since 1970."""
    read: int = 0
    """When reading it began, in nanoseconds since 1970."""
    pixels: bytes | None = None
    """uint8 [H, W, C], row by row, or a PNG file; None for what is known, and for failures."""
    error: str | None = None
    """Why there are no pixels."""
    intensity: IntensityRange | None = None
    """Least and greatest value of a gray image with more than 8 bits, if they were asked for."""
    dimensions: Size | None = None
    """Width and height in pixels, where the order says to measure: as in the file, or upright."""


def read_image(path: str, order: DecodeOptions, view: int = 0) -> DecodedImage:
    """Read the file at `path` once, for its digest and its view's pixels; whatever is wrong becomes `error`."""
    read = time.time_ns()
    try:
        with open_image_file(path, MAX_BYTES) as (file, size, modified):
            if order.measure == "size":
                return DecodedImage(dimensions=dimensions(file))
            if order.measure == "upright":
                return DecodedImage(dimensions=upright_dimensions(file))
            if size > MAX_BYTES:
                return DecodedImage(error=f"has {size:,} bytes, more than the {MAX_BYTES:,} that are read")
            data = cast("bytes | None", file.read())
            if data is None:  # such as /proc/kmsg, opened without waiting
                return DecodedImage(error="cannot be read: it has nothing to give now")
    except OSError as error:
        return DecodedImage(error=f"cannot be read: {error.strerror}")
    except MemoryError:
        return DecodedImage(error="cannot be read: not enough memory")
    except (UndecodableError, UnreadableError) as error:  # the first while measuring
        return DecodedImage(error=str(error))
    except ValueError as error:  # a NUL in the name
        return DecodedImage(error=f"cannot be read: {error}")
    digest = hashlib.sha256(data).digest()
    image = DecodedImage(digest=digest, size=size, modified=modified, read=read)
    if (digest, view) in order.known:
        return image
    try:
        if order.measure == "intensity":
            return image._replace(intensity=measure_intensity(data))
        return image._replace(pixels=_pixels(data, order, view, digest))
    except UndecodableError as error:
        return image._replace(error=str(error))


def _pixels(data: bytes, order: DecodeOptions, view: int, digest: bytes) -> bytes | None:
    """What the order wants of a file's bytes. Raises UndecodableError."""
    if order.preprocessing is None and not order.png:
        return None
    preprocessing = order.preprocessing
    channels = 3 if preprocessing is None else preprocessing.channels
    intensity = order.intensity if preprocessing is None else preprocessing.intensity
    if view == 0 or order.augmentation is None:
        enough = None if preprocessing is None else functools.partial(oversampling, preprocessing=preprocessing)
        image = decode(data, channels, enough, intensity)
    else:
        whole = decode(data, 3, augment.view_oversampling, intensity)
        image = augment.view(whole, order.augmentation, seed=order.seed, view=view, digest=digest)
        image = image if channels == 3 else image.convert("L")
    if preprocessing is not None:
        return fit_image(image, preprocessing).tobytes()
    return _png(image) if view else None


def _png(image: Image.Image) -> bytes:
    image.info.clear()  # a profile or comment of the original, which may not fit the view
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


def serve(requests: Connection, answers: BinaryIO) -> None:
    """Answer requests until the parent closes its end. The first is `DecodeOptions`, answered by an empty line."""
    order: DecodeOptions = requests.recv()
    if order.augmentation is not None:
        _prepare_augmenting()
    answers.write(b"\n")
    answers.flush()
    while True:
        try:
            path, view = requests.recv()
        except EOFError:
            return
        send_image(answers, read_image(path, order, view))


def send_image(stream: BinaryIO, image: DecodedImage) -> None:
    """Send an image: its fields as a JSON array in a line, then its pixels, if it has any."""
    digest = None if image.digest is None else image.digest.hex()
    length = None if image.pixels is None else len(image.pixels)
    stream.write(json.dumps([*image._replace(digest=None, pixels=None), digest, length]).encode() + b"\n")
    if image.pixels is not None:
        stream.write(image.pixels)
    stream.flush()


def receive_image(stream: BinaryIO) -> DecodedImage:
    """What `send_image` sent. Raises EOFError where that doesn't come whole, or is something else."""
    try:
        *fields, digest, length = json.loads(stream.readline())
        if length is not None and not 0 <= length <= MEMORY_LIMIT:
            raise ValueError
        image = DecodedImage(*fields)
        image = image._replace(
            digest=None if digest is None else bytes.fromhex(digest),
            pixels=None if length is None else stream.read(length),
            intensity=_pair(image.intensity),
            dimensions=_pair(image.dimensions),
        )
    except (ValueError, TypeError) as error:
        raise EOFError from error
    if image.pixels is not None and len(image.pixels) < length:
        raise EOFError
    return image


def _pair(values: tuple[T, T] | None) -> tuple[T, T] | None:
    """What was a tuple before it was JSON."""
    return None if values is None else (values[0], values[1])


def _prepare_augmenting() -> None:
    import torch

    augment.import_transforms()  # before the first image's time begins to run
    torch.set_num_threads(1)  # there is a process for each core already
    # Training waits for views only when it runs out of them, while they would take its cores all the time.
    os.nice(NICE)


def main() -> None:
    """Entry of the process: `requests` and `answers` are the file descriptors in its arguments."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most), most)
        )
    # C libraries (libtiff) write to descriptor 2 about odd files; the reason is in the answer already.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    requests, answers = (int(number) for number in sys.argv[-2:])
    try:
        serve(Connection(requests), os.fdopen(answers, "wb"))
    except BrokenPipeError:
        os._exit(0)  # the parent is gone; nobody is left to tell

"""A decoder process: read, hash, decode, and resize one image file per request.

It imports torch only to augment. Each process has two pipes of its own, so it can be killed at any time without
affecting the others. A request is a path, or the content of a file, and a view. A response is a `DecodedImage`, sent as
JSON and bytes: the parent never unpickles data from a process that decodes untrusted images. The process ends when its
parent does.
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
from tlcli.images.color import Note
from tlcli.images.decode import Size, UndecodableError, decode, dimensions, measure_intensity, upright_dimensions
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import MIN_OVERSAMPLING, Preprocessing, fit_image, oversampling
from tlcli.settings.augmentation import Augmentation
from tlcli.storage.reading import UnreadableError, open_image_file
from tlcli.storage.stored import Stamp

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h

NICE = 10
"""Niceness of a process that augments."""

MAX_BYTES = 2**30
"""Larger files are rejected without reading them."""

MEMORY_LIMIT = 6 * 2**30
"""Bytes of memory that one process may use: enough for an image of `MAX_PIXELS` with transparency."""

PNG_LEVEL = 1
"""Compression level. Noise hardly compresses, and higher levels take up to twice as long."""

JPEG_QUALITY = 85
"""Quality of thumbnails."""

ImageRequest = tuple[str | bytes, int]
"""Path of an image, or the content of its file, and number of the view; view 0 is the unchanged image."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How a decoder process handles every request."""

    preprocessing: Preprocessing | None = None
    """How to resize images; None only hashes them."""
    measure: str | None = None
    """Measure instead of returning pixels. `size`: width and height as stored, and `upright`: width and height of the
    upright image, both from the header alone and without a digest. `intensity`: minimum and maximum of a gray image
    with more than 8 bits; other images are only hashed."""
    intensity: IntensityRange | None = None
    """Values that become black and white in gray images with more than 8 bits, if `preprocessing` is None."""
    thumbnail: int | None = None
    """Return the whole image as a JPEG file instead of pixels; its longer side has at most this many pixels."""
    png: bool = False
    """Return views as PNG files in their own size, without resizing. View 0 is decoded, but not returned."""
    augmentation: Augmentation | None = None
    """Augmentation of views above 0; None leaves all views unchanged."""
    seed: int = 0
    """Seed of the views."""
    known: frozenset[tuple[bytes, int]] = frozenset()
    """Digest and view of images whose pixels are not needed."""


class DecodedImage(NamedTuple):
    """Result of one request. All fields have defaults, because a failure leaves most of them unset."""

    digest: bytes | None = None
    """SHA-256 of the file; None if it could not be read."""
    stamp: Stamp = Stamp()
    """Stamp of the file that was read."""
    read: int = 0
    """Time at which reading started, in nanoseconds since 1970."""
    pixels: bytes | None = None
    """uint8 [H, W, C] in row-major order, or a PNG or JPEG file; None for known images and for failures."""
    error: str | None = None
    """Why decoding failed; None if it succeeded."""
    intensity: IntensityRange | None = None
    """Minimum and maximum of a gray image with more than 8 bits, if `measure` is `intensity`."""
    dimensions: Size | None = None
    """Width and height in pixels, if `measure` is `size` or `upright`."""
    note: str | None = None
    """What was ignored in the file, such as a damaged color profile; one of a few texts. None if nothing was."""


def read_image(path: str, options: DecodeOptions, view: int = 0) -> DecodedImage:
    """Read the file at `path` once and return its digest and its view's pixels, or the reason for a failure."""
    read = time.time_ns()
    try:
        with open_image_file(path, MAX_BYTES) as (file, stamp):
            if options.measure == "size":
                notes: list[str] = []
                return DecodedImage(dimensions=dimensions(file, notes.append), note=next(iter(notes), None))
            if options.measure == "upright":
                return DecodedImage(dimensions=upright_dimensions(file))
            if stamp.size > MAX_BYTES:
                return DecodedImage(error=f"has {stamp.size:,} bytes, more than the limit of {MAX_BYTES:,}")
            data = cast("bytes | None", file.read())
            if data is None:  # a special file such as /proc/kmsg, opened in non-blocking mode
                return DecodedImage(error="cannot be read: no data available")
    except OSError as error:
        return DecodedImage(error=f"cannot be read: {error.strerror}")
    except MemoryError:
        return DecodedImage(error="cannot be read: not enough memory")
    except (UndecodableError, UnreadableError) as error:  # UndecodableError only while measuring
        return DecodedImage(error=str(error))
    except ValueError as error:  # a NUL in the path
        return DecodedImage(error=f"cannot be read: {error}")
    return decode_file(data, options, view)._replace(stamp=stamp, read=read)


def decode_file(data: bytes, options: DecodeOptions, view: int = 0) -> DecodedImage:
    """Return the digest of a file's content and its view's pixels, or the reason for a failure."""
    digest = hashlib.sha256(data).digest()
    image = DecodedImage(digest=digest)
    if (digest, view) in options.known:
        return image
    try:
        if options.measure == "intensity":
            return image._replace(intensity=measure_intensity(data))
        notes: list[str] = []
        pixels = _pixels(data, options, view, digest, notes.append)
        return image._replace(pixels=pixels, note=notes[0] if notes else None)
    except UndecodableError as error:
        return image._replace(error=str(error))


def _pixels(data: bytes, options: DecodeOptions, view: int, digest: bytes, note: Note) -> bytes | None:
    """Return the pixels or PNG file that the options request. Raises UndecodableError."""
    if options.thumbnail is not None:
        return _thumbnail(data, options.thumbnail, options.intensity, note)
    if options.preprocessing is None and not options.png:
        return None
    preprocessing = options.preprocessing
    channels = 3 if preprocessing is None else preprocessing.channels
    intensity = options.intensity if preprocessing is None else preprocessing.intensity
    if view == 0 or options.augmentation is None:
        needed = None if preprocessing is None else functools.partial(oversampling, preprocessing=preprocessing)
        image = decode(data, channels, needed, intensity, note)
    else:
        original = decode(data, 3, augment.view_oversampling, intensity, note)
        image = augment.make_view(original, options.augmentation, seed=options.seed, view=view, digest=digest)
        image = image if channels == 3 else image.convert("L")
    if preprocessing is not None:
        return fit_image(image, preprocessing).tobytes()
    return _encode_png(image) if view else None


def _thumbnail(data: bytes, side: int, intensity: IntensityRange | None, note: Note) -> bytes:
    image = decode(data, 3, lambda size: max(size) / side / MIN_OVERSAMPLING, intensity, note)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    image.info.clear()  # neither the location nor a damaged profile of the original
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _encode_png(image: Image.Image) -> bytes:
    image.info.clear()  # drop the color profile and comment of the original, which may not apply to the view
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


def handle_requests(requests: Connection, responses: BinaryIO) -> None:
    """Receive `DecodeOptions`, respond with an empty line, and handle requests until the parent closes its end."""
    options: DecodeOptions = requests.recv()
    if options.augmentation is not None:
        _prepare_augmentation()
    responses.write(b"\n")
    responses.flush()
    while True:
        try:
            source, view = requests.recv()
        except EOFError:
            return
        load = decode_file if isinstance(source, bytes) else read_image
        send_image(responses, load(source, options, view))


def send_image(stream: BinaryIO, image: DecodedImage) -> None:
    """Send an image: a line with its fields as a JSON array, followed by its pixels, if any."""
    digest = None if image.digest is None else image.digest.hex()
    length = None if image.pixels is None else len(image.pixels)
    stream.write(json.dumps([*image._replace(digest=None, pixels=None), digest, length]).encode() + b"\n")
    if image.pixels is not None:
        stream.write(image.pixels)
    stream.flush()


def receive_image(stream: BinaryIO) -> DecodedImage:
    """Receive what `send_image` sent. Raises EOFError if it is incomplete or malformed."""
    try:
        *fields, digest, length = json.loads(stream.readline())
        if length is not None and not 0 <= length <= MEMORY_LIMIT:
            raise ValueError
        image = DecodedImage(*fields)
        image = image._replace(
            digest=None if digest is None else bytes.fromhex(digest),
            stamp=Stamp(*image.stamp),
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
    """Turn a JSON array back into a tuple."""
    return None if values is None else (values[0], values[1])


def _prepare_augmentation() -> None:
    import torch

    augment.import_transforms()  # before the time limit of the first image starts
    torch.set_num_threads(1)  # there is one process per core already
    # Training waits for views only when it runs out of them. Without this, augmentation would always compete with it.
    os.nice(NICE)


def run_worker() -> None:
    """Run the decoder process. The last two arguments are the file descriptors of requests and responses."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    # C libraries such as libtiff write warnings to file descriptor 2; the response already has the reason.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    requests, responses = (int(number) for number in sys.argv[-2:])
    try:
        handle_requests(Connection(requests), os.fdopen(responses, "wb"))
    except BrokenPipeError:
        os._exit(0)  # the parent is gone

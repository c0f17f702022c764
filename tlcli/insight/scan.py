"""The first pass: all images through the network once, and a running top nine for every unit of several layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlcli.engines.choice import pick_batch_size, pick_engine
from tlcli.engines.onnx_export import export_onnx
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import Runner, map_padded
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.insight.subject import Subject
from tlcli.insight.top_activations import RunningTop
from tlcli.insight.units import Maxima, Tap
from tlcli.progress import Advance, Reporter
from tlcli.settings import ComputeSettings

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one pass over the images gave."""

    tops: tuple[RunningTop, ...]
    """One for each layer."""
    failures: dict[int, str]
    """Why an image was left out, by its number."""
    copies: int
    """Images that were byte-identical to earlier ones; they count once."""


def scan(
    subject: Subject, taps: Sequence[Tap], paths: Sequence[str], compute: ComputeSettings, report: Reporter
) -> Scan:
    """Pass every image through the network once.

    Beside the list of images and their digests, memory doesn't grow with their number.

    Args:
        subject: The network.
        taps: Layers to look into.
        paths: Of the images; their places in this list are their numbers.
        compute: Batch size and decoding processes.
        report: Shown the progress.
    """
    runner = _runner(subject, Maxima(subject.look_into(taps), taps), len(paths), report)
    size = pick_batch_size(compute.batch_size, subject.device)
    tops = tuple(RunningTop(tap.layout.units) for tap in taps)
    ends = np.cumsum([tap.layout.units for tap in taps])[:-1]
    with (
        ImageLoader(DecodeOptions(preprocessing=subject.preprocessing), workers=compute.worker_count()) as loader,
        report.task("Look", len(paths)) as advance,
    ):
        images = _Distinct(loader, paths, advance)
        batches = _batches(images, size, subject.preprocessing.shape)
        for values in map_padded(runner, batches, size):
            numbers = np.array([images.given.popleft() for _ in values], np.int64)
            for top, part in zip(tops, np.split(values, ends, axis=1), strict=True):
                top.update(part, numbers)
    return Scan(tops=tops, failures=images.failures, copies=images.copies)


def _runner(subject: Subject, maxima: Maxima, images: int, report: Reporter) -> Runner:
    preprocessing = subject.preprocessing

    def exported() -> bytes:
        report.note("Export    the network, for ONNX Runtime")
        return export_onnx(maxima, preprocessing)

    engine = pick_engine("auto", subject.device, "fp32", images)
    return open_runner(
        maxima,
        preprocessing,
        exported=exported if engine == "onnx" else None,
        required=False,
        device=subject.device,
        precision="fp32",
        report=report,
    )


class _Distinct:
    """The pixels of each image that can be read and wasn't given before, in order."""

    def __init__(self, loader: ImageLoader, paths: Sequence[str], advance: Advance) -> None:
        self._loader, self._paths, self._advance = loader, paths, advance
        self._seen: set[bytes] = set()
        self.given: deque[int] = deque()
        """Numbers of the images given, until somebody takes them."""
        self.failures: dict[int, str] = {}
        self.copies = 0

    def __iter__(self) -> Iterator[bytes]:
        for number, image in enumerate(self._loader.load(self._paths)):
            self._advance(1)
            if image.pixels is None or image.digest is None:
                self.failures[number] = image.error or "cannot be read"
            elif image.digest in self._seen:
                self.copies += 1
            else:
                self._seen.add(image.digest)
                self.given.append(number)
                yield image.pixels


def _batches(pixels: Iterable[bytes], size: int, shape: tuple[int, int, int]) -> Iterator[Pixels]:
    """Uint8 [B, H, W, C], up to `size` images at a time."""
    some: list[bytes] = []
    for one in pixels:
        some.append(one)
        if len(some) == size:
            yield stack_images(some, shape)
            some = []
    if some:
        yield stack_images(some, shape)

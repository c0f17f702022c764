"""Predict images of many clients together: decoded in killable processes, computed by one thread per core.

An image passes three stages: a decoder process; the network; and the comparison with the training images, for which up
to `COMPARED_TOGETHER` images are collected. A stage waits at most `MAX_WAIT` for more images, and only while others are
in progress.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from tlcli.images.batch import stack_images
from tlcli.images.worker import DecodedImage
from tlcli.inference.network_outputs import Outputs
from tlcli.inference.novelty import COMPARED_TOGETHER
from tlcli.inference.predictor import Prediction, Predictor
from tlcli.inference.row_options import row_options
from tlcli.inference.rows import RowOptions
from tlcli.progress import Silent
from tlcli.runs.run import Run
from tlcli.settings import PredictSettings

MAX_IN_PROGRESS = 256
"""Images in progress, at most; more are refused."""
MAX_WAIT = 0.005
"""Seconds that an image waits for others, at most, in each stage."""
TIME_LIMIT = 20.0
"""Seconds to decode one image."""
KEPT_OPTIONS = 64
"""Combinations of settings whose thresholds are kept."""

_COMPARING = threading.Lock()
"""Held while images are compared, because the number of threads of matrix products belongs to the process."""


class BusyError(Exception):
    """Too many images are in progress."""


@dataclass(kw_only=True)
class _Job:
    """One image on its way."""

    done: Future[Prediction] = field(default_factory=Future)
    image: DecodedImage = field(default_factory=DecodedImage)
    outputs: Outputs | None = None
    """With one row; None if the image could not be read."""

    def resolve(self, prediction: Prediction) -> None:
        """Set the result, unless the request was abandoned."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_result(prediction)

    def fail(self, error: BaseException) -> None:
        """Set an exception, unless the request was abandoned."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_exception(error)


_Jobs = SimpleQueue["_Job | None"]
"""None ends the thread that takes it."""


class Batcher:
    """A run that predicts images of many clients. Thread-safe.

    Args:
        run: The run whose network predicts.
        device: See `Predictor`.
        workers: Number of decoder processes; None starts one per core.

    Raises:
        ArtifactError: See `Predictor`.
        MachineError: See `Predictor`.
    """

    def __init__(self, run: Run, *, device: str, workers: int | None) -> None:
        self.run = run
        self._predictor = Predictor(run, device=device, workers=workers)
        self._loader = self._predictor.open_loader(time_limit=TIME_LIMIT)
        self._decoded: _Jobs = SimpleQueue()
        self._computed: _Jobs = SimpleQueue()
        self._lock = threading.Lock()
        self.in_progress = 0
        """Images that were accepted and are not answered yet."""
        self.row_options = functools.lru_cache(KEPT_OPTIONS)(self._row_options)
        """Return what a row contains with these settings. Raises UsageError, DataError and ArtifactError."""
        self._computing = [
            threading.Thread(target=self._compute, name="network", daemon=True)
            for _ in range(self._predictor.model.threads)
        ]
        self._comparing = threading.Thread(target=self._compare, name="compare", daemon=True)
        for thread in (*self._computing, self._comparing):
            thread.start()

    @property
    def model_name(self) -> str:
        """Device, precision, and engine."""
        return self._predictor.model.name

    def start(self) -> None:
        """Start the decoder processes, which otherwise start with the first images. Raises MachineError."""
        self._loader.start()

    def submit(self, contents: Sequence[bytes]) -> list[Future[Prediction]]:
        """Predict the images with these files' contents.

        A future that is cancelled frees its place.

        Raises:
            BusyError: Too many images are in progress.
        """
        with self._lock:
            if self.in_progress + len(contents) > MAX_IN_PROGRESS:
                raise BusyError
            self.in_progress += len(contents)
        return [self._submit_one(content) for content in contents]

    def close(self) -> None:
        """End all threads and processes. Nothing may be in progress."""
        for _ in self._computing:
            self._decoded.put(None)
        for thread in self._computing:
            thread.join()
        self._computed.put(None)
        self._comparing.join()
        self._loader.__exit__(None, None, None)

    def _row_options(self, settings: PredictSettings) -> RowOptions:
        return row_options(self.run, settings, Silent())[0]

    def _submit_one(self, content: bytes) -> Future[Prediction]:
        job = _Job()
        job.done.add_done_callback(self._count_done)
        decoding = self._loader.decode(content)
        # Weak, or a cycle would keep the pixels until it is collected.
        cancel = weakref.WeakMethod(decoding.cancel)
        job.done.add_done_callback(lambda _: (abandon := cancel()) and abandon())  # if it has not started yet
        decoding.add_done_callback(functools.partial(self._take_decoded, job))
        return job.done

    def _count_done(self, _: Future[Prediction]) -> None:
        with self._lock:
            self.in_progress -= 1

    def _take_decoded(self, job: _Job, decoding: Future[DecodedImage]) -> None:
        if decoding.cancelled():
            return
        error = decoding.exception()
        if error is not None:
            job.fail(error)
            return
        job.image = decoding.result()
        (self._decoded if job.image.pixels else self._computed).put(job)

    def _compute(self) -> None:
        """Run the network on decoded images until None is taken."""
        model, shape = self._predictor.model, self.run.preprocessing.shape
        # A model that can be called from several threads takes images one by one: they are better spread over threads.
        most = 1 if model.threads > 1 else model.batch_size
        while jobs := self._gather(self._decoded, most):
            try:
                outputs = model.run(stack_images([job.image.pixels or b"" for job in jobs], shape))
            except Exception as error:  # noqa: BLE001 - raised in the requests
                for job in jobs:
                    job.fail(error)
                continue
            for row, job in enumerate(jobs):
                one = slice(row, row + 1)
                features = None if outputs.features is None else outputs.features[one]
                job.outputs = Outputs(outputs.logits[one], features)
            if self.in_progress <= len(jobs):  # nothing to wait for: another thread would only come later
                self._finish(jobs)
                continue
            for job in jobs:
                self._computed.put(job)

    def _compare(self) -> None:
        """Make predictions of outputs until None is taken."""
        while jobs := self._gather(self._computed, COMPARED_TOGETHER):
            self._finish(jobs)

    def _finish(self, jobs: list[_Job]) -> None:
        try:
            with _COMPARING:
                found = self._predictor.predictions([([("", job.image)], job.outputs) for job in jobs])
        except Exception as error:  # noqa: BLE001 - raised in the requests
            for job in jobs:
                job.fail(error)
            return
        for job, prediction in zip(jobs, found, strict=True):
            job.resolve(prediction)

    def _gather(self, queue: _Jobs, most: int) -> list[_Job]:
        """Take a job, and those that come within `MAX_WAIT` while others are in progress; none at the end."""
        jobs: list[_Job] = []
        deadline = 0.0
        while len(jobs) < most:
            try:
                if not jobs:
                    job = queue.get()
                    deadline = time.monotonic() + MAX_WAIT
                elif self.in_progress > len(jobs) and (rest := deadline - time.monotonic()) > 0:
                    job = queue.get(timeout=rest)
                else:
                    job = queue.get_nowait()
            except Empty:
                break
            if job is None:
                if jobs:
                    queue.put(None)
                break
            jobs.append(job)
        return jobs

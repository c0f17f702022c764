"""A finished run, loaded and verified: what `finetune` writes and the other commands read.

`run.json` is written last, so a directory without it is an unfinished run. It contains the SHA-256 of every other
file and of itself; a run with a wrong checksum is refused. Nothing in a run is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError, DataError, replace_path_in_error
from tlcli.images.preprocess import Preprocessing
from tlcli.runs.directory import CONFIG_FILE, NOVELTY_FILE, RUN_FILE, SPLITS_FILE, WEIGHTS_FILE, recover_run
from tlcli.runs.schema import check_info
from tlcli.storage.files import is_sealed, read_json, sha256_file
from tlcli.storage.publish import publish_directory
from tlcli.storage.remote import content_of, download
from tlcli.storage.urls import Location, Url, default_cache

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of the run format."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, verified."""

    directory: Path
    info: dict[str, Any]
    """The content of `run.json`."""
    config: dict[str, Any]
    """The content of `config.json`, in timm's layout."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return tuple(self.info["classes"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        return Preprocessing.from_json(self.info["preprocessing"])

    @property
    def temperature(self) -> float:
        """The divisor of the logits before the softmax."""
        return float(self.info["temperature"])

    @property
    def log_prior(self) -> npt.NDArray[np.float64] | None:
        """Float [k], added to the scores if classes were weighted in training; see `inference.calibration`."""
        values = self.info["log_prior"]
        return None if values is None else np.array(values)

    @property
    def layer(self) -> int:
        """Number of the last frozen layer; 0 if none is frozen."""
        return int(self.info["freeze"]["layer"])

    @property
    def is_openvino_bf16(self) -> bool:
        """Whether OpenVINO computed the features in bf16. The run's labels in fp32 then agree, by its own check."""
        return bool(self.info["precision"] == "bf16" and self.info["engine"] == "openvino")

    @property
    def has_novelty(self) -> bool:
        """Whether the run can tell how untypical an image is."""
        return NOVELTY_FILE in self.info["files"]

    def content(self, name: str) -> bytes:
        """Read one of the run's files, and verify it again: the run may have been overwritten since it was loaded.

        Raises:
            ArtifactError: The file is missing or was changed.
        """
        path = self.directory / name
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtifactError(_missing_message(path), path=path) from error
        if hashlib.sha256(content).hexdigest() != self.info["files"][name]:
            raise ArtifactError(_damaged_message(path), path=path)
        return content

    def splits(self) -> dict[bytes, str]:
        """Return the split of each image that the run was trained or evaluated on, by digest.

        Raises:
            ArtifactError: The file is missing or was changed.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(self.content(SPLITS_FILE)))
        return dict(zip(table["digest"].to_pylist(), table["split"].to_pylist(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        """Return the network's state dict.

        Raises:
            ArtifactError: The file is missing, was changed, or is not a safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.content(WEIGHTS_FILE))
        except (SafetensorError, ValueError) as error:
            path = self.directory / WEIGHTS_FILE
            raise ArtifactError(f"{path} is not a readable safetensors file: {error}", path=path) from error


def load_run(location: Location) -> Run:
    """Load a run and verify all of its files.

    A run at a URL is downloaded once, and again when its `run.json` changes.

    Raises:
        ArtifactError: It is not a run, or it is unfinished, of another format, or damaged.
        MachineError: The URL cannot be reached.
    """
    if isinstance(location, Url):
        return _load_remote_run(location)
    directory = location
    if not directory.exists():
        recover_run(directory)
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is not a directory; expected a run written by tlcli finetune.", path=directory
        )
    if not (directory / RUN_FILE).exists():
        raise ArtifactError(
            f"{directory} has no {RUN_FILE}: it is not a tlcli run, or it did not finish. Finish it with tlcli "
            "finetune DATA --out RUN --resume.",
            path=directory,
        )
    info = _verified_info(directory)
    for name, digest in info["files"].items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(_missing_message(path), path=path)
        if sha256_file(path) != digest:
            raise ArtifactError(_damaged_message(path), path=path)
    return Run(directory=directory, info=info, config=read_json(directory / CONFIG_FILE, "a run's network"))


def _verified_info(directory: Path) -> dict[str, Any]:
    """Return the content of `run.json`; all files that it names are files of a run."""
    info = read_json(directory / RUN_FILE, "a tlcli run")
    if info.get("format") != FORMAT:
        raise ArtifactError(
            f"{directory} has run format {info.get('format')!r}; this version of tlcli reads {FORMAT}.", path=directory
        )
    if not is_sealed(info):
        raise ArtifactError(_damaged_message(directory / RUN_FILE), path=directory / RUN_FILE)
    check_info(info, directory / RUN_FILE)
    return info


def _load_remote_run(url: Url) -> Run:
    try:
        content = content_of(url / RUN_FILE)
    except DataError as error:
        raise ArtifactError(
            f"{url} has no {RUN_FILE}: it is not a tlcli run, or it did not finish.", path=url
        ) from error
    key = hashlib.sha256(f"{url}\n".encode() + content).hexdigest()[:32]
    directory = default_cache() / "runs" / key / url.name
    try:
        if not directory.is_dir():
            _download_run(url, content, directory)
        return load_run(directory)
    except ArtifactError as error:
        shutil.rmtree(directory.parent, ignore_errors=True)  # so that it is downloaded again next time
        replace_path_in_error(error, str(directory), str(url))
        raise


def _download_run(url: Url, content: bytes, directory: Path) -> None:
    """Download a run to a local directory, which appears whole; `content` is its `run.json`."""
    runs = directory.parent.parent
    runs.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=runs, prefix=".", suffix=".tmp", ignore_cleanup_errors=True) as name,
        publish_directory(directory.parent, Path(name) / "run", keep_existing=True) as folder,
    ):
        staging = folder / url.name
        staging.mkdir()
        (staging / RUN_FILE).write_bytes(content)
        try:
            for file in _verified_info(staging)["files"]:
                download(url / file, staging / file)
        except ArtifactError as error:
            replace_path_in_error(error, str(staging), str(url))
            raise
        except DataError as error:
            raise ArtifactError(f"{error.message} The run is incomplete.", path=error.path) from error


def describe_freeze(freeze: dict[str, Any]) -> str:
    """Return in words up to where a network is frozen, from `freeze` of `run.json`."""
    if freeze["layer"] == freeze["of"]:
        return "frozen up to the head"
    if not freeze["layer"]:
        return "nothing frozen"
    return f"frozen up to layer {freeze['layer']} of {freeze['of']} ({freeze['name']})"


def describe_parents(info: dict[str, Any]) -> str | None:
    """Return in words which runs a run continues, from the content of its `run.json`; None if it continues none."""
    parents = [f"{parent['path']} ({describe_freeze(parent['freeze'])})" for parent in info.get("parents", [])]
    return f"Continued from {', which continued from '.join(parents)}" if parents else None


def _missing_message(path: Path) -> str:
    return f"{path} is missing. Restore it, or train again with --overwrite."


def _damaged_message(path: Path) -> str:
    return f"{path} was changed since the run was written (its checksum differs). Restore it, or train again."

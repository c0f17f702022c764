"""A finished run: what `finetune` writes and every other command reads.

`run.json` is written last, so a directory without it is an unfinished run. It holds the SHA-256 of every other
file and of itself; whatever fails its checksum is refused. Nothing in a run is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError, DataError, replace_path_in_error
from tlcli.images.preprocess import Preprocessing
from tlcli.runs.directory import CONFIG_FILE, ONNX_FILE, RUN_FILE, SPLITS_FILE, WEIGHTS_FILE, recover
from tlcli.runs.schema import check_info
from tlcli.storage.files import as_json, is_sealed, read_json, sealed, sha256_file, write_json
from tlcli.storage.publish import atomic_write, publish_directory
from tlcli.storage.remote import content_of, download
from tlcli.storage.urls import Location, Url, default_cache

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


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
        """How images enter the network."""
        return Preprocessing.from_json(self.info["preprocessing"])

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax."""
        return float(self.info["temperature"])

    @property
    def log_prior(self) -> npt.NDArray[np.float64] | None:
        """Float [k], added to the scores where classes were balanced in training; see `training.calibration`."""
        values = self.info["log_prior"]
        return None if values is None else np.array(values)

    @property
    def layer(self) -> int:
        """Number of the last frozen layer."""
        return int(self.info["freeze"]["layer"])

    def content(self, name: str) -> bytes:
        """The bytes of one of its files, checked again: another run may have taken this one's place meanwhile.

        Raises:
            ArtifactError: the file is gone, or another one.
        """
        path = self.directory / name
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtifactError(_missing(path), path=path) from error
        if hashlib.sha256(content).hexdigest() != self.info["files"][name]:
            raise ArtifactError(_damaged(path), path=path)
        return content

    def splits(self) -> dict[bytes, str]:
        """The split of every image that the run learnt from or was judged on, by the digest of its bytes.

        Raises:
            ArtifactError: the file is gone, or another one.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(self.content(SPLITS_FILE)))
        return dict(zip(table["digest"].to_pylist(), table["split"].to_pylist(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        """The network's state dict.

        Raises:
            ArtifactError: the file is gone, another one, or no safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.content(WEIGHTS_FILE))
        except (SafetensorError, ValueError) as error:
            path = self.directory / WEIGHTS_FILE
            raise ArtifactError(f"{path} is not a readable safetensors file: {error}", path=path) from error


def load_run(place: Location) -> Run:
    """Open a run and verify every file of it. One at a URL is fetched once, and again when its `run.json` changes.

    Raises:
        ArtifactError: it is no run, an unfinished one, of another format, or damaged.
        MachineError: its URL can't be reached.
    """
    if isinstance(place, Url):
        return _load_fetched(place)
    directory = place
    if not directory.exists():
        recover(directory)
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is not a directory; expected a run that tlcli finetune wrote.", path=directory
        )
    if not (directory / RUN_FILE).exists():
        raise ArtifactError(
            f"{directory} has no {RUN_FILE}: it is no run of tlcli, or one that did not finish. Finish it with "
            "tlcli finetune DATA --out RUN --resume.",
            path=directory,
        )
    info = _checked_info(directory)
    for name, digest in info["files"].items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(_missing(path), path=path)
        if sha256_file(path) != digest:
            raise ArtifactError(_damaged(path), path=path)
    return Run(directory=directory, info=info, config=read_json(directory / CONFIG_FILE, "a run's network"))


def _checked_info(directory: Path) -> dict[str, Any]:
    """The content of `run.json`, which names files of a run and no others."""
    info = read_json(directory / RUN_FILE, "a run of tlcli")
    if info.get("format") != FORMAT:
        raise ArtifactError(
            f"{directory} has run format {info.get('format')!r}; this tlcli reads {FORMAT}.", path=directory
        )
    if not is_sealed(info):
        raise ArtifactError(_damaged(directory / RUN_FILE), path=directory / RUN_FILE)
    check_info(info, directory / RUN_FILE)
    return info


def _load_fetched(url: Url) -> Run:
    try:
        content = content_of(url / RUN_FILE)
    except DataError as error:
        raise ArtifactError(
            f"{url} has no {RUN_FILE}: it is no run of tlcli, or one that did not finish.", path=url
        ) from error
    key = hashlib.sha256(f"{url}\n".encode() + content).hexdigest()[:32]
    directory = default_cache() / "runs" / key / url.name
    try:
        if not directory.is_dir():
            _fetch(url, content, directory)
        return load_run(directory)
    except ArtifactError as error:
        shutil.rmtree(directory.parent, ignore_errors=True)  # it is fetched again next time
        replace_path_in_error(error, str(directory), str(url))
        raise


def _fetch(url: Url, content: bytes, directory: Path) -> None:
    """Copy a run to a directory of this machine, which appears whole."""
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
            for file in _checked_info(staging)["files"]:
                download(url / file, staging / file)
        except ArtifactError as error:
            replace_path_in_error(error, str(staging), str(url))
            raise
        except DataError as error:
            raise ArtifactError(f"{error.message} The run is not whole.", path=error.path) from error


def _missing(path: Path) -> str:
    return f"{path} is missing. Restore it, or train again with --overwrite."


def _damaged(path: Path) -> str:
    return f"{path} was changed since the run was written (its checksum differs). Restore it, or train again."


def write_run(
    directory: Path,
    *,
    weights: dict[str, Tensor],
    config: dict[str, Any],
    info: dict[str, Any],
    epochs: Sequence[dict[str, Any]],
    predictions: Sequence[dict[str, Any]],
    splits: dict[bytes, str],
    report: str,
    onnx: bytes | None,
) -> dict[str, Any]:
    """Write a run's files, `run.json` last.

    Args:
        directory: Where.
        weights: The network's state dict.
        config: timm's `config.json`.
        info: What `run.json` says besides format and checksums.
        epochs: Lines of `metrics.jsonl`.
        predictions: Rows of `predictions.parquet`: path, label, split, predicted, confidence, probabilities.
        splits: Rows of `splits.parquet`: the split of each image, by digest.
        report: `report.html`.
        onnx: `model.onnx`; None leaves it out.

    Returns:
        The whole content of `run.json`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.torch import save

    # Of what is written, not of what lies there then: so nothing that another process puts there can pass for ours.
    digests: dict[str, str] = {}

    def put(name: str, content: bytes) -> None:
        with atomic_write(directory / name) as file:
            file.write(content)
        digests[name] = hashlib.sha256(content).hexdigest()

    put(WEIGHTS_FILE, save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))
    put(CONFIG_FILE, as_json(config))
    put("metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in epochs))
    texts = {name: pa.string() for name in ("path", "label", "split", "predicted")}
    schema = pa.schema(texts | {"confidence": pa.float32(), "probabilities": pa.list_(pa.float32())})
    columns = {"digest": pa.array(splits.keys(), pa.binary(32)), "split": pa.array(splits.values(), pa.string())}
    for name, table in (
        ("predictions.parquet", pa.Table.from_pylist(list(predictions), schema)),
        (SPLITS_FILE, pa.table(columns)),
    ):
        file = io.BytesIO()
        pq.write_table(table, file)
        put(name, file.getvalue())
    put("report.html", report.encode("utf8", "backslashreplace"))
    if onnx is not None:
        put(ONNX_FILE, onnx)
    whole = sealed({"format": FORMAT} | info | {"files": digests})
    write_json(directory / RUN_FILE, whole)
    return whole

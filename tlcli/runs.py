"""The run directory: what `finetune` writes and every other command reads.

`run.json` is written last, so a directory without it is an unfinished run. It holds the SHA-256 of every other
file and of itself; whatever fails its checksum is refused. Nothing in a run is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError, UsageError
from tlcli.files import atomic_write, canonical_json, read_json, sha256_file, sync_directory, write_json
from tlcli.images.preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SPLITS_FILE = "splits.parquet"
FILES = (RUN_FILE, WEIGHTS_FILE, CONFIG_FILE, SPLITS_FILE, "metrics.jsonl", "predictions.parquet", "report.html")
"""All that a run consists of; a directory with anything else in it is never deleted."""
UNFINISHED = ".unfinished"
"""Stands in the directory of a run while it is written."""


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
        """How pictures enter the network."""
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

    def splits(self) -> dict[bytes, str]:
        """The split of every picture that the run learnt from or was judged on, by the digest of its bytes."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.directory / SPLITS_FILE)
        return dict(zip(table["digest"].to_pylist(), table["split"].to_pylist(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        """The network's state dict.

        Raises:
            ArtifactError: the file is no safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.directory / WEIGHTS_FILE
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtifactError(f"{path} is not a readable safetensors file: {error}", path=path) from error


def load_run(directory: Path) -> Run:
    """Open a run and verify every file of it.

    Raises:
        ArtifactError: it is no run, an unfinished one, of another format, or damaged.
    """
    _recover(directory)
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
    info = read_json(directory / RUN_FILE, "a run of tlcli")
    if info.get("format") != FORMAT:
        raise ArtifactError(
            f"{directory} has run format {info.get('format')!r}; this tlcli reads {FORMAT}.", path=directory
        )
    if info.get("sha256") != _own_hash(info):
        raise ArtifactError(_damaged(directory / RUN_FILE), path=directory / RUN_FILE)
    for name, digest in info["files"].items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing. Restore it, or train again with --overwrite.", path=path)
        if sha256_file(path) != digest:
            raise ArtifactError(_damaged(path), path=path)
    return Run(directory=directory, info=info, config=read_json(directory / CONFIG_FILE, "a run's network"))


def _damaged(path: Path) -> str:
    return f"{path} was changed since the run was written (its checksum differs). Restore it, or train again."


def _own_hash(info: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({key: info[key] for key in info if key != "sha256"})).hexdigest()


@contextlib.contextmanager
def new_run(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to write a run into, which is `out` when the block has ended well.

    A run that is overwritten stays whole until the new one is; a new directory that got nothing is removed.

    Raises:
        UsageError: `out` exists and `overwrite` is not set, or it is something else than a run.
    """
    check_out(out, overwrite=overwrite)
    replaces = out.exists() and any(out.iterdir())
    directory = out.with_name(f".{out.name}.new") if replaces else out
    if replaces:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / UNFINISHED
    marker.touch()
    try:
        yield directory
        marker.unlink()
    except BaseException:
        if replaces:
            shutil.rmtree(directory)
        elif os.listdir(directory) == [UNFINISHED]:  # noqa: PTH208
            marker.unlink()
            directory.rmdir()
        raise
    if replaces:
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of an overwriting that was killed at its very end
        out.rename(old)
        directory.rename(out)
        sync_directory(out.parent)
        shutil.rmtree(old)


def _recover(out: Path) -> None:
    """Give the old run its name back, where an overwriting was killed between its two renames."""
    old = out.with_name(f".{out.name}.old") if out.name else out
    if old.is_dir() and not out.exists():
        old.rename(out)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse to write a run where something else is.

    Raises:
        UsageError: see `new_run`.
    """
    _recover(out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory for the run.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite and (out / UNFINISHED).exists():
        raise UsageError(f"{out} holds an unfinished run. Go on with --resume, or replace it with --overwrite.")
    if not overwrite:
        raise UsageError(f"{out} exists. Choose another --out, or replace it with --overwrite.")
    if not (out / RUN_FILE).exists() and not (out / UNFINISHED).exists():
        raise UsageError(f"{out} is not a run of tlcli, so it is not replaced. Choose another --out.")
    others = sorted(name for name in os.listdir(out) if name not in (*FILES, UNFINISHED) and not name.endswith(".tmp"))  # noqa: PTH208
    if others:
        raise UsageError(
            f"{out} holds {others[0]}, which is no part of a run, so it is not replaced. Choose another --out, or move "
            "that away."
        )


def free_name(data: Path) -> Path:
    """`runs/<name of data>`, or the first of `-2`, `-3`, ... that doesn't exist."""
    name = data.absolute().stem if data.is_file() else data.resolve().name
    base = Path("runs") / (name or "run")
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


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
) -> dict[str, Any]:
    """Write a run's files, `run.json` last.

    Args:
        directory: Where.
        weights: The network's state dict.
        config: timm's `config.json`.
        info: What `run.json` says besides format and checksums.
        epochs: Lines of `metrics.jsonl`.
        predictions: Rows of `predictions.parquet`: path, label, split, predicted, confidence, probabilities.
        splits: Rows of `splits.parquet`: the split of each picture, by digest.
        report: `report.html`.

    Returns:
        The whole content of `run.json`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.torch import save

    with atomic_write(directory / WEIGHTS_FILE) as file:
        file.write(save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))
    write_json(directory / CONFIG_FILE, config)
    with atomic_write(directory / "metrics.jsonl") as file:
        file.writelines(json.dumps(line).encode() + b"\n" for line in epochs)
    texts = {name: pa.string() for name in ("path", "label", "split", "predicted")}
    schema = pa.schema(texts | {"confidence": pa.float32(), "probabilities": pa.list_(pa.float32())})
    with atomic_write(directory / "predictions.parquet") as file:
        pq.write_table(pa.Table.from_pylist(list(predictions), schema), file)
    with atomic_write(directory / SPLITS_FILE) as file:
        columns = {"digest": pa.array(splits.keys(), pa.binary(32)), "split": pa.array(splits.values(), pa.string())}
        pq.write_table(pa.table(columns), file)
    with atomic_write(directory / "report.html") as file:
        file.write(report.encode("utf8", "backslashreplace"))
    names = [name for name in FILES if name != RUN_FILE]
    whole = {"format": FORMAT} | info | {"files": {name: sha256_file(directory / name) for name in names}}
    whole["sha256"] = _own_hash(whole)
    write_json(directory / RUN_FILE, whole)
    return whole

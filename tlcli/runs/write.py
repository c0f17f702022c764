"""Write a run's files, `run.json` last."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.runs.directory import (
    CONFIG_FILE,
    NOVELTY_FILE,
    ONNX_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    SPLITS_FILE,
    WEIGHTS_FILE,
)
from tlcli.runs.run import FORMAT
from tlcli.storage.files import as_json, sealed, write_json
from tlcli.storage.publish import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """The content of a run's files."""

    weights: dict[str, Tensor]
    """The network's state dict, for `model.safetensors`."""
    config: dict[str, Any]
    """`config.json`, in timm's layout."""
    info: dict[str, Any]
    """`run.json`, without the format version and checksums."""
    epochs: Sequence[dict[str, Any]]
    """Lines of `metrics.jsonl`."""
    predictions: Sequence[dict[str, Any]]
    """Rows of `predictions.parquet`: path, digest, group, label, split, predicted, confidence, probabilities."""
    splits: dict[bytes, str]
    """Rows of `splits.parquet`: the split of each image, by digest."""
    report: str
    """`report.html`."""
    onnx: bytes | None
    """`model.onnx`; None writes no such file."""
    novelty: bytes | None
    """`novelty.safetensors`; None writes no such file."""


def write_run(directory: Path, content: RunContent) -> dict[str, Any]:
    """Write a run's files to a directory, `run.json` last.

    Returns:
        The complete content of `run.json`.
    """
    from safetensors.torch import save

    # Checksums of what is written, not of what is on disk afterwards: a file that another process puts there fails.
    digests: dict[str, str] = {}

    def write(name: str, data: bytes) -> None:
        with atomic_write(directory / name) as file:
            file.write(data)
        digests[name] = hashlib.sha256(data).hexdigest()

    write(WEIGHTS_FILE, save({name: tensor.detach().cpu().contiguous() for name, tensor in content.weights.items()}))
    write(CONFIG_FILE, as_json(content.config))
    write("metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in content.epochs))
    write(PREDICTIONS_FILE, _predictions_parquet(content.predictions))
    write(SPLITS_FILE, _splits_parquet(content.splits))
    write("report.html", content.report.encode("utf8", "backslashreplace"))
    if content.onnx is not None:
        write(ONNX_FILE, content.onnx)
    if content.novelty is not None:
        write(NOVELTY_FILE, content.novelty)
    info = sealed({"format": FORMAT} | content.info | {"files": digests})
    write_json(directory / RUN_FILE, info)
    return info


def _predictions_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa

    types = {"path": pa.string(), "digest": pa.binary(32)}
    types |= {name: pa.string() for name in ("group", "label", "split", "predicted")}
    schema = pa.schema(types | {"confidence": pa.float32(), "probabilities": pa.list_(pa.float32())})
    return _parquet(pa.Table.from_pylist(list(rows), schema))


def _splits_parquet(splits: dict[bytes, str]) -> bytes:
    import pyarrow as pa

    columns = {"digest": pa.array(splits.keys(), pa.binary(32)), "split": pa.array(splits.values(), pa.string())}
    return _parquet(pa.table(columns))


def _parquet(table: Any) -> bytes:  # noqa: ANN401 - pyarrow has no types
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()

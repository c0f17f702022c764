"""A tiny run."""

import pytest
import torch

from tlcli.runs.write import RunContent, write_run

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3).t(), "steps": torch.tensor(3)}
PREDICTIONS = [
    {
        "path": "photos/a\n.jpg",
        "digest": bytes(range(32)),
        "group": "00",
        "label": "cat",
        "split": "test",
        "predicted": "dog",
        "confidence": 0.75,
        "probabilities": [0.25, 0.75],
    }
]


@pytest.fixture
def weights():
    """The state dict of the run."""
    return WEIGHTS


@pytest.fixture
def predictions():
    """The rows of `predictions.parquet`."""
    return PREDICTIONS


@pytest.fixture
def info(small):
    """The content of `run.json`, without format version and checksums."""
    return {
        "created": "2026-11-23T15:00:00+00:00",
        "classes": ["cat", "dög"],
        "preprocessing": small.to_json(),
        "temperature": 1.25,
        "log_prior": None,
        "precision": "fp32",
        "backbone": "tiny",
        "settings": {},
        "freeze": {"layer": 3, "name": "blocks.2", "of": 9},
    }


@pytest.fixture
def write():
    """Write a run with a network of two tensors to a directory, which is created if necessary."""

    def write_tiny_run(directory, info):
        directory.mkdir(parents=True, exist_ok=True)
        content = RunContent(
            weights=WEIGHTS,
            config={"architecture": "tiny", "num_classes": 2},
            info=info,
            epochs=[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}],
            predictions=PREDICTIONS,
            splits={bytes(32): "train", bytes([1] * 32): "validation"},
            report="<html>é \udce9</html>",
            onnx=b"pixels to logits",
            novelty=None,
        )
        return write_run(directory, content)

    return write_tiny_run


@pytest.fixture
def run(tmp_path, info, write):
    """The directory of a run."""
    write(tmp_path / "run", info)
    return tmp_path / "run"

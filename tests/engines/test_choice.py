"""The engine is chosen from the settings, the hardware and the number of images."""

from __future__ import annotations

import pytest
import torch

from tlcli.engines.choice import MIN_IMAGES_FOR_ONNX, pick_engine
from tlcli.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("engine", "device", "precision", "images", "expected"),
    [
        ("auto", CPU, "fp32", MIN_IMAGES_FOR_ONNX, "onnx"),
        ("auto", CPU, "fp32", MIN_IMAGES_FOR_ONNX - 1, "torch"),
        ("auto", CPU, "fp32", None, "onnx"),
        ("auto", CUDA, "fp16", None, "torch"),
        ("auto", CPU, "bf16", 10**6, "torch"),
        ("auto", CUDA, "fp16", 10**6, "torch"),
        ("torch", CPU, "fp32", 10**6, "torch"),
        ("onnx", CPU, "fp32", 1, "onnx"),
    ],
)
def test_pick_engine(engine, device, precision, images, expected):
    assert pick_engine(engine, device, precision, images) == expected


@pytest.mark.parametrize(("device", "precision"), [(CPU, "bf16"), (CUDA, "fp32")])
def test_onnx_is_refused_where_it_is_not_supported(device, precision):
    with pytest.raises(UsageError, match="--engine onnx runs on a CPU in fp32"):
        pick_engine("onnx", device, precision, 10)

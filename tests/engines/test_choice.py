"""The engine is chosen from the settings, the hardware and the number of images."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch

from tlcli.engines import openvino_session
from tlcli.engines.choice import MIN_IMAGES_FOR_ONNX, pick_engine
from tlcli.errors import MachineError, UsageError

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
        ("openvino", CPU, "fp32", 1, "openvino"),
    ],
)
def test_pick_engine(engine, device, precision, images, expected, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "installed")
    assert pick_engine(engine, device, precision, images) == expected


@pytest.mark.parametrize(
    ("engine", "device", "precision"),
    [
        ("onnx", CPU, "bf16"),
        ("onnx", CUDA, "fp32"),
        ("openvino", CUDA, "fp32"),
        ("openvino", CUDA, "bf16"),
        ("openvino", CUDA, "fp16"),
    ],
)
def test_engines_for_exports_are_refused_where_they_are_not_supported(engine, device, precision):
    with pytest.raises(UsageError, match=f"--engine {engine} runs on a CPU in fp32"):
        pick_engine(engine, device, precision, 10)


@pytest.mark.parametrize(("capabilities", "supported"), [(["FP32", "BF16"], True), (["FP32", "INT8"], False)])
def test_bf16_in_openvino_needs_a_processor_with_instructions_for_it(capabilities, supported, monkeypatch):
    class Core:
        def get_property(self, device, name):
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return capabilities

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "installed")
    monkeypatch.setattr(openvino_session, "openvino_core", Core)
    if supported:
        assert pick_engine("openvino", CPU, "bf16", 10) == "openvino"
    else:
        with pytest.raises(MachineError, match=r"AMX-BF16 or AVX-512 BF16.*no benefit here\. Use --precision fp32"):
            pick_engine("openvino", CPU, "bf16", 10)


def test_without_openvino_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MachineError, match=re.escape("pip install 'tlcli[openvino]'")):
        pick_engine("openvino", CPU, "fp32", 10)

"""An ONNX file in fp16 is half the size, and is refused where its activations overflow."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_runs import about_onnx, expected, normalized
from onnx import TensorProto, helper, numpy_helper

from tlcli.cli.main import run as tlcli
from tlcli.errors import ArtifactError
from tlcli.exporting import comparison
from tlcli.exporting.fp16 import check_fp16_range, convert_to_fp16
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.preprocess import display_preprocessing


def test_fp16_is_half_the_size(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(gray), "--format", "onnx", "--json", "--workers", "1"]
    with monkeypatch.context() as changed:
        changed.setattr(comparison, "FP16_AGREEMENT", 1.01)
        assert tlcli([*arguments, "--fp16"]) == 4
        assert "needs more than 16 bits" in capsys.readouterr().out
        assert list(tmp_path.iterdir()) == []
    assert tlcli(arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    assert tlcli([*arguments, "--fp16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == "run-fp16.onnx"
    assert found["bytes"] < 0.6 * whole["bytes"]
    assert 0 < found["max_difference"] <= found["tolerance"]["max_difference"] == 0.05
    assert found["agreement"] >= found["tolerance"]["agreement"] == 0.95
    onnx.checker.check_model(onnx.load("run-fp16.onnx"), full_check=True)
    session = onnxruntime.InferenceSession("run-fp16.onnx")
    pixels, shares = expected(gray, gray.parent / "photos")
    for count in (1, 2, 7):
        logits, after = session.run(None, {"images": normalized(pixels[:count], about_onnx(session))})
        assert logits.dtype == after.dtype == np.float32
        np.testing.assert_allclose(after, shares[:count], atol=0.02)
        np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)  # probabilities are computed in fp32


@pytest.mark.parametrize(("factor", "fits"), [(100, True), (3000, False)])
def test_activations_that_overflow_are_refused(factor, fits):
    large, small = (
        numpy_helper.from_array(np.full((1, 3, 1, 1), value, np.float32), name)
        for name, value in (("large", factor), ("small", 1 / factor))
    )
    nodes = [
        helper.make_node("Mul", ["images", "large"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "large"], ["peak"]),
        helper.make_node("Mul", ["peak", "small"], ["less"]),
        helper.make_node("Mul", ["less", "small"], ["same"]),
        helper.make_node("GlobalAveragePool", ["same"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("logits", "probabilities")
    ]
    graph = helper.make_graph(nodes, "network", [images], outputs, [large, small])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    converted = convert_to_fp16(model)
    network_input = NetworkInput(preprocessing=display_preprocessing(4, background=0.0), takes_pixels=False)
    pixels = np.full((2, 4, 4, 3), 255, np.uint8)
    if fits:
        check_fp16_range(converted, network_input, pixels)
        return
    with pytest.raises(ArtifactError, match="exceeds 65,504"):
        check_fp16_range(converted, network_input, pixels)

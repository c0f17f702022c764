"""OpenVINO runs exports that it gives ONNX Runtime's results for, from many threads, and refuses others."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tlcli.engines import openvino_session
from tlcli.engines.onnx_export import append_head
from tlcli.engines.onnx_session import OnnxSession, UnloadableError, relative_difference
from tlcli.engines.openvino_session import OpenVinoSession, bf16_obstacle

pytest.importorskip("openvino")

PIXELS = np.random.default_rng(1).integers(0, 256, (24, 6, 6, 3), np.uint8)


def network():
    """Return a network with two outputs: pixels uint8 [1, 6, 6, 3] to float32 [1, 4] and [1, 108]."""
    weight = np.random.default_rng(0).normal(size=(108, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["features"]),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
    ]
    return model_of(nodes, {"logits": 4, "features": 108}, {"weight": weight})


def model_of(nodes, sizes, constants):
    """Return a network for pixels uint8 [1, 6, 6, 3], with outputs float32 [1, size] and constants by name."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in sizes.items()]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 6, 6, 3])
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "network", [pixels], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def test_outputs_and_their_order_are_those_of_onnx_runtime():
    found, expected = (session(network()).outputs(PIXELS) for session in (OpenVinoSession, OnnxSession))
    assert [values.shape for values in found] == [(24, 4), (24, 108)]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)


def test_results_depend_on_neither_threads_nor_batches():
    session = OpenVinoSession(network())
    whole = session.run(PIXELS)
    np.testing.assert_array_equal(np.concatenate(list(session.map(np.split(PIXELS, 8)))), whole)
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(session.run, np.split(PIXELS, 24)))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_network_with_other_results_is_refused(monkeypatch):
    class Different(OnnxSession):
        def outputs(self, pixels):
            return [1.1 * values for values in super().outputs(pixels)]

    monkeypatch.setattr(openvino_session, "OnnxSession", Different)
    with pytest.raises(UnloadableError, match=r"differs from ONNX Runtime by 9.1 %"):
        OpenVinoSession(network())


def test_nothing_is_sent_when_openvino_is_imported(tmp_path):
    (tmp_path / "network.onnx").write_bytes(network())
    code = "import pathlib, sys; from tlcli.engines.openvino_session import OpenVinoSession; "
    code += "OpenVinoSession(pathlib.Path(sys.argv[1]).read_bytes()); "
    code += "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "network.onnx"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.stdout.strip() == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"], "its client ID would be kept at home"


@pytest.mark.skipif(bf16_obstacle() is not None, reason="needs a processor with instructions for bf16")
def test_in_bf16_a_head_is_computed_in_fp32_on_the_features_that_a_cache_has():
    rng = np.random.default_rng(0)
    kernel = rng.normal(scale=0.01, size=(16, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
    ]
    prefix = model_of(nodes, {"features": 16}, {"kernel": kernel})
    weight, bias = rng.normal(size=(4, 16)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    expected = OpenVinoSession(prefix, "bf16").run(PIXELS)
    logits, features = OpenVinoSession(append_head(prefix, weight, bias), "bf16").outputs(PIXELS)
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_allclose(logits, features @ weight.T + bias, rtol=1e-5)
    exact = OnnxSession(prefix).run(PIXELS)
    assert 1e-4 < relative_difference(features, exact) < 0.05


@pytest.mark.parametrize("content", [b"", b"no network", network()[:200]])
def test_a_damaged_network_is_refused(content):
    with pytest.raises(UnloadableError, match="OpenVINO cannot load the network"):
        OpenVinoSession(content)

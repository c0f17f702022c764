"""OpenVINO IR agrees with the run in fp32, and reports how it agrees in bf16 and int8."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from exported_runs import HOSTILE, ROOT, WITHOUT, expected, normalized, with_changed_weight

from tlcli.cli.main import run as tlcli
from tlcli.commands import export as command
from tlcli.engines import openvino_session
from tlcli.engines.openvino_session import openvino_core
from tlcli.runs.run import load_run

FILES = ["README.md", "model.bin", "model.xml"]


def load(folder):
    """Return the network computing in fp32, and its metadata."""
    core = openvino_core()
    model = core.read_model(folder / "model.xml")
    keys = ("classes", "preprocessing", "log_prior", "temperature", "input", "run")
    about = {key: json.loads(model.get_rt_info(["tlcli", key]).astype(str)) for key in keys}
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), about


def test_openvino_agrees_with_the_run(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(gray), "--format", "openvino", "--json", "--workers", "1"]
    assert tlcli(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == "run-openvino"
    assert found["format"] == "openvino"
    assert found["max_difference"] <= found["tolerance"]["max_difference"] == 1e-4
    assert found["agreement"] == 1
    assert sorted(path.name for path in (tmp_path / "run-openvino").iterdir()) == FILES
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "run-openvino").iterdir())
    can_bf16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (found["bf16"] is not None) == can_bf16
    if can_bf16:
        assert 1e-4 < found["bf16"]["max_difference"] < 0.1
        assert found["bf16"]["agreement"] > 0.8
    network, about = load(tmp_path / "run-openvino")
    assert sorted(about["classes"]) == sorted(HOSTILE.values())
    assert about["log_prior"] == load_run(gray).info["log_prior"] is not None
    pixels, shares = expected(gray, gray.parent / "photos")
    for count in (1, 2, 7):
        after = network({"images": normalized(pixels[:count], about)})["probabilities"]
        np.testing.assert_allclose(after, shares[:count], atol=1e-4)
    assert str(ROOT).encode() not in (tmp_path / "run-openvino/model.xml").read_bytes()

    assert tlcli(arguments) == 2
    assert "run-openvino is not empty" in capsys.readouterr().out
    (tmp_path / "run-openvino/mine.txt").write_text("mine")
    assert tlcli([*arguments, "--overwrite"]) == 2
    assert "'mine.txt', which tlcli export did not write" in capsys.readouterr().out


@pytest.mark.slow
def test_the_card_has_working_code(gray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = next(path for path in (gray.parent / "photos").rglob("*") if path.is_file())
    shutil.copy(image, tmp_path / "image.jpg")
    for flags in ([], ["--with-preprocessing"]):
        assert tlcli(["export", str(gray), "--format", "openvino", "--out", "x", "--overwrite", *flags]) == 0
        card = (tmp_path / "x/README.md").read_text()
        assert 'library_name: "openvino"' in card
        lines = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
        code = WITHOUT.format(refused={"tlcli", "torch", "timm"}) + lines
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rpartition(" ")[0] in HOSTILE.values()


@pytest.mark.slow
def test_int8_and_fp16_are_smaller(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = {}
    for flag in ("", "--fp16", "--int8"):
        arguments = ["export", str(gray), "--format", "openvino", "--json", "--workers", "1", *flag.split()]
        assert tlcli(arguments) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["agreement"] >= found["tolerance"]["agreement"]
        assert (found["int8"] is not None) == (flag == "--int8")
        sizes[flag] = (tmp_path / found["out"] / "model.bin").stat().st_size
    assert sizes["--fp16"] < 0.51 * sizes[""]
    assert sizes["--int8"] < 0.3 * sizes[""]
    assert {path.name for path in tmp_path.iterdir()} == {"run-openvino", "run-fp16-openvino", "run-int8-openvino"}


def test_openvino_that_differs_is_not_written(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load_network", with_changed_weight(command.load_network))
    assert tlcli(["export", str(gray), "--format", "openvino"]) == 4
    assert "at most 0.0001 is accepted. Nothing was written." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: None)
    assert tlcli(["export", str(gray), "--format", "openvino"]) == 5
    message = " ".join(capsys.readouterr().err.split())
    assert "--format openvino needs OpenVINO, which is not installed: pip install 'tlcli[openvino]'" in message
    assert list(tmp_path.iterdir()) == []

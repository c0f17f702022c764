"""With a warm cache, a command whose network only has to be known imports no timm, and gives the same results."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from tlcli.cli.main import run
code = run(sys.argv[1:])
print([name for name in ("torch", "timm", "torchvision") if name in sys.modules])
sys.exit(code)
"""
NETWORK = ["--size", "64", "--device", "cpu"]


def run_tlcli(*arguments):
    """Run a command in a new process; return its JSON object, and which of the heavy packages it imported."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content, modules = done.stdout.rsplit("\n", 2)[:2]
    return json.loads(content), modules


def test_a_warm_finetune_writes_the_same_run_without_timm(trained, photos, tmp_path):
    run = tmp_path / "run"
    info, modules = run_tlcli("finetune", photos, "--out", run, "--cache", trained.cache, *NETWORK)
    assert modules == "['torch']"
    assert info["images"]["computed"] == 0
    for name in ("model.safetensors", "config.json", "model.onnx", "novelty.safetensors"):
        assert (run / name).read_bytes() == (trained.run / name).read_bytes(), name
    same = ("backbone", "weights", "freeze", "head", "preprocessing", "cache", "validation", "temperature", "engine")
    assert {key: info[key] for key in same} == {key: trained.info[key] for key in same}


def test_a_warm_finetune_on_other_classes_has_a_head_of_their_size(trained, photos, tmp_path):
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for name in ("disc", "square"):
        (fewer / name).symlink_to(photos / name)
    run = tmp_path / "run"
    info, modules = run_tlcli("finetune", fewer, "--out", run, "--cache", trained.cache, *NETWORK)
    assert (modules, info["head"]["parameters"]) == ("['torch']", 2 * 1280 + 2)
    rows, _ = run_tlcli("predict", run, photos / "disc", "--engine", "torch")  # rebuilds the network from the run
    assert rows["images"] == 15


def test_new_images_with_an_exported_prefix_need_no_timm(trained, photos, draw, tmp_path):
    cache = tmp_path / "cache"
    cache.symlink_to(trained.cache)
    draw(tmp_path / "more" / "disc" / "new.png", 1)
    for name in ("square", "stripes"):
        (tmp_path / "more" / name).symlink_to(photos / name)
    for number in range(15):
        (tmp_path / "more" / "disc" / f"{number}.jpg").symlink_to(photos / "disc" / f"{number:02d}.jpg")
    run = tmp_path / "run"
    info, modules = run_tlcli("finetune", tmp_path / "more", "--out", run, "--cache", cache, *NETWORK)
    assert (modules, info["images"]["computed"]) == ("['torch']", 1)


@pytest.mark.parametrize("command", ["check", "cache-features"])
def test_other_commands_with_a_warm_cache_need_no_timm(command, trained, photos):
    found, modules = run_tlcli(command, photos, "--cache", trained.cache, *NETWORK)
    assert (found["computed"], found["reused"], modules) == (0, 45, "['torch']")


def test_evaluate_needs_no_torch(trained, photos):
    found, modules = run_tlcli("evaluate", trained.run, photos, "--device", "cpu")
    assert (found["images"] > 0, modules) == (True, "[]")

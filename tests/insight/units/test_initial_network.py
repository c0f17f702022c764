"""The network before fine-tuning is rebuilt only if it is what training started from, and runs in the same pass."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.commands.finetune import finetune
from tlcli.commands.inspect import inspect
from tlcli.insight.activation_taps import choose_taps, tap_stages
from tlcli.insight.units.inspected_network import load_inspected_network
from tlcli.insight.units.tapped_network import tapped_network
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, InspectSettings, NetworkSettings
from tlcli.settings import TrainingSettings as Training
from tlcli.storage.files import sealed, sha256_file, write_json

COMPUTE = ComputeSettings(workers=1, device="cpu")


def tune(photos, root, epochs=6, **network):
    settings = FinetuneSettings(
        data=photos,
        out=root / "run",
        network=NetworkSettings(**network),
        training=Training(epochs=epochs, learning_rate=0.003),
        compute=COMPUTE,
        cache=CacheSettings(directory=root / "cache"),
    )
    finetune(settings)
    return root / "run"


def inspect_lines(network, photos, out, **changes):
    result = inspect(InspectSettings(network=str(network), data=photos, out=out, compute=COMPUTE, **changes))
    return result, [json.loads(line) for line in (out / "units.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def lenet(photos, tmp_path_factory):
    """A run of LeNet-5 from random weights with its first layer frozen."""
    return tune(photos, tmp_path_factory.mktemp("lenet"), backbone="lenet5", weights="none", freeze="1", seed=0)


@pytest.mark.slow
def test_before_equals_the_backbone_and_frozen_layers_are_shown_once(lenet, photos, tmp_path):
    layers = ("1", "2")
    result, lines = inspect_lines(lenet, photos, tmp_path / "run", layers=layers, units=3)
    _, untrained = inspect_lines("lenet5", photos, tmp_path / "backbone", layers=layers, units=1000, weights="none")
    assert [layer.compared for layer in result.layers] == [False, True]
    assert {line["finetuning"] for line in untrained} == {None}
    assert {line["finetuning"] for line in lines if line["layer"] == 1} == {None}

    def rows(lines, layer, unit, *stages):
        return [
            {key: line[key] for key in ("rank", "path", "position", "box", "activation")}
            for line in lines
            if (line["layer"], line["unit"]) == (layer, unit) and line["finetuning"] in stages
        ]

    for layer in result.layers:
        for unit in layer.units:
            expected = rows(untrained, layer.number, unit, None)
            for row, own in zip(rows(lines, layer.number, unit, None, "before"), expected, strict=True):
                assert row | {"activation": pytest.approx(row["activation"], rel=1e-4)} == own
            after = rows(lines, layer.number, unit, "after")
            assert len(after) == (9 if layer.compared else 0)
            assert after != expected
    page = (tmp_path / "run" / "inspect.html").read_text()
    assert page.count("before fine-tuning: ") == 3
    assert page.count("This layer was frozen") == 1
    assert "Before: random weights (seed 0)." in page


def test_both_networks_share_the_frozen_layers_in_one_pass(photos, lenet):
    network = load_inspected_network(str(lenet), device="cpu")
    assert network.initial is not None
    taps = tap_stages(choose_taps(network.backbone, ("1", "2", "4")), frozen=1, compare=True)
    assert [(tap.layer.number, tap.stage) for tap in taps] == [
        (1, None), (2, "before"), (2, "after"), (4, "before"), (4, "after"),
    ]  # fmt: skip
    first, second = (next(iter(model.children())) for model in (network.backbone.model, network.initial))
    calls = []
    for module in (first, second):
        module.register_forward_hook(lambda module, given, value: calls.append(module))
    spec = network.backbone.input
    images = torch.randn(2, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = network.tapped(taps)(images)
        assert calls == [first]
        for tap, value in zip(taps, together, strict=True):
            model = network.initial if tap.before else network.backbone.model
            (alone,) = tapped_network(model, trace_backbone(network.backbone), [tap])(images)
            assert torch.equal(value, alone)
    assert not torch.equal(together[1], together[2])


@pytest.mark.slow
def test_weights_that_changed_since_are_not_shown_as_before(photos, tmp_path, report):
    file = tmp_path / "weights.pth"
    torch.save(load_backbone("lenet5", "none", seed=3).model.state_dict(), file)
    run = tune(photos, tmp_path, epochs=20, backbone="lenet5", weights=str(file), freeze="1")

    def remark():
        return load_inspected_network(str(run), device="cpu").remark

    assert remark() == f"Before: weights from {file}."
    torch.save(load_backbone("lenet5", "none", seed=4).model.state_dict(), file)
    assert "have changed" in remark()
    file.unlink()
    assert "cannot be shown" in remark()
    result, lines = inspect_lines(run, photos, tmp_path / "out", layers=("2",), units=1)
    assert not result.layers[0].compared
    assert {line["finetuning"] for line in lines} == {"after"}
    assert "cannot be shown" in (tmp_path / "out" / "inspect.html").read_text()


def rewritten(run, to, *, layer, package="numpy", changed=()):
    """Copy a run, with another frozen layer, another version of a package, and changed weights."""
    shutil.copytree(run, to)
    info = json.loads((to / "run.json").read_text())
    info["freeze"]["layer"] = layer
    info["versions"][package] = "0.1"
    weights = load_file(to / "model.safetensors")
    save_file({name: value + (name in changed) for name, value in weights.items()}, to / "model.safetensors")
    info["files"]["model.safetensors"] = sha256_file(to / "model.safetensors")
    write_json(to / "run.json", sealed(info))
    return to


@pytest.mark.parametrize(("package", "shown"), [("numpy", True), ("torch", False)])
def test_random_weights_are_not_rebuilt_with_another_torch_version(package, shown, lenet, tmp_path):
    """Without frozen layers, only the versions show whether the weights are the same."""
    run = rewritten(lenet, tmp_path / "run", layer=0, package=package)
    network = load_inspected_network(str(run), device="cpu")
    assert (network.initial is not None) == shown
    assert ("another version of torch" in network.remark) != shown


@pytest.mark.slow
def test_the_bundled_backbone_before_and_after(trained, photos, tmp_path):
    run = rewritten(trained.run, tmp_path / "run", layer=16, changed={"bn2.bias"})
    result, lines = inspect_lines(run, photos, tmp_path / "out", layers=("16", "18"), units=2)
    assert [layer.compared for layer in result.layers] == [False, True]
    found = {line["finetuning"]: line["activation"] for line in lines if line["rank"] == 1 and line["layer"] == 18}
    assert found["after"] == pytest.approx(found["before"] + 1, rel=1e-4)


@pytest.mark.slow
def test_training_without_improvement(photos, tmp_path, monkeypatch):
    """The best weights may be the initial ones."""
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_, **__: None)
    run = tune(photos, tmp_path, epochs=1, backbone="lenet5", weights="none", freeze="1")
    network = load_inspected_network(str(run), device="cpu")
    assert network.initial is None
    assert "Training changed only the head" in network.remark
    assert {
        tap.stage for tap in tap_stages(choose_taps(network.backbone, ()), frozen=network.frozen, compare=False)
    } == {None}


def test_only_the_head_was_trained(trained, photos):
    network = load_inspected_network(str(trained.run), device="cpu")
    assert network.initial is None
    assert "as before fine-tuning" in network.remark


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_result(lenet, photos, tmp_path, monkeypatch):
    """For a few hundred images or more, the first pass uses ONNX Runtime."""
    _, expected = inspect_lines(lenet, photos, tmp_path / "torch", layers=("1", "2"), units=2)
    monkeypatch.setattr("tlcli.engines.choice.MIN_IMAGES_FOR_ONNX", 1)
    monkeypatch.setattr("tlcli.engines.opening.TorchRunner", None)
    _, found = inspect_lines(lenet, photos, tmp_path / "onnx", layers=("1", "2"), units=2)
    assert [line | {"activation": pytest.approx(line["activation"], rel=1e-3, abs=1e-5)} for line in expected] == found

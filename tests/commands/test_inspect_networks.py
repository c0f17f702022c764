"""inspect of networks that tlcli knows, and of a run: the command, its layers, and their boxes."""

import json
from dataclasses import replace

import pytest
from inspected_units import lines, settings

from tlcli.cli.main import run
from tlcli.commands.inspect import inspect
from tlcli.errors import UsageError
from tlcli.settings import InspectSettings


def test_the_command_prints_one_object(photos, tmp_path, capfd):
    (tmp_path / "d").mkdir()
    for folder in photos.iterdir():
        (tmp_path / "d" / folder.name).symlink_to(folder)
    out = tmp_path / "out"
    arguments = ["inspect", "lenet5", str(photos), "--weights", "none", "--out", str(out), "--json", "--units", "2"]
    arguments += ["--workers", "1", "--layer", "1", "--layer", "conv2"]
    assert run(arguments) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() >= {"out", "layers", "units", "images", "seconds", "failed"}
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "conv2"]
    assert (found["units"], found["images"], found["failed"]) == (4, 45, 0)
    assert len(lines(out)) == 4 * 9
    names = {path.name for path in out.iterdir()}
    assert names == {"inspect.html", "units.jsonl", "filters.png"} | {layer["file"] for layer in found["layers"]}
    assert run(arguments) == 2
    assert "not empty" in json.loads(capfd.readouterr().out)["error"]["message"]


def test_the_command_exits_with_3_if_an_image_failed(photos, tmp_path, capfd):
    for name in ("disc", "square"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:3]:
            (tmp_path / "d" / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "d" / "disc" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = ["inspect", "lenet5", str(tmp_path / "d"), "--weights", "none", "--out", str(tmp_path / "o")]
    code = run([*arguments, "--json", "--layer", "1"])
    assert code == 3
    assert json.loads(capfd.readouterr().out)["failed"] == 1


def test_a_run_uses_its_own_size(trained, photos, tmp_path):
    with pytest.raises(UsageError, match="--size has no effect on a run"):
        inspect(InspectSettings(network=str(trained.run), data=photos, out=tmp_path / "o", size=64))
    result = inspect(InspectSettings(network=str(trained.run), data=photos, out=tmp_path / "o", layers=("2",), units=1))
    assert result.layers[0].name == "blocks.0.0"
    assert all(line["box"][2] - line["box"][0] == 7 for line in lines(tmp_path / "o"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "fields"),
    [("lenet5", (6, 16, 32, 32)), ("torchvision/alexnet", (19, 67, 99, 131, 195, 224, 224))],
)
def test_every_layer_of_plain_networks(network, fields, photos, tmp_path):
    for name in ("disc", "square"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:2]:
            (tmp_path / "d" / name / path.name).write_bytes(path.read_bytes())
    layers = tuple(str(number) for number in range(1, len(fields) + 1))
    shown = settings(tmp_path / "d", tmp_path / "o", layers=layers, units=1, weights="none")
    result = inspect(replace(shown, network=network))
    assert [layer.number for layer in result.layers] == [int(layer) for layer in layers]
    found = lines(tmp_path / "o")
    for layer, side in zip(result.layers, fields, strict=True):
        own = [line for line in found if line["layer"] == layer.number]
        assert {line["rank"] for line in own} == {1, 2, 3, 4}
        for x0, y0, x1, y1 in (line["box"] for line in own):
            assert (x1 - x0, y1 - y0) == (side, side)


@pytest.mark.slow
def test_attention_layers_show_whole_images(photos, tmp_path):
    result = inspect(
        InspectSettings(
            network="vit_tiny_patch16_224",
            weights="none",
            size=32,
            data=photos,
            out=tmp_path / "o",
            layers=("blocks.1",),
            units=1,
        )
    )
    assert result.layers[0].of == 192
    assert all(line["box"] == [0, 0, 32, 32] for line in lines(tmp_path / "o"))
    assert "highlighted where the unit is active" in (tmp_path / "o" / "inspect.html").read_text(encoding="utf8")


@pytest.mark.parametrize(("layer", "message"), [("99", "has layers 1 to"), ("conv9", "Did you mean conv")])
def test_unknown_layers_are_refused(layer, message, photos, tmp_path):
    with pytest.raises(UsageError, match=message):
        inspect(InspectSettings(network="lenet5", weights="none", data=photos, out=tmp_path / "o", layers=(layer,)))

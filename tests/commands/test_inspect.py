"""inspect: from images to an output folder, including failures."""

import itertools
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from inspected_units import lines, settings
from PIL import Image
from torch import nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.input_spec import InputSpec
from tlcli.commands import inspect as command
from tlcli.commands.inspect import inspect
from tlcli.errors import DataError, UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.insight.units.inspected_network import InspectedNetwork

SIDE = 32
RED, EDGE = 0, 1
DOT = (200, 30, 30)


class Detectors(nn.Module):
    """Unit 0 responds to red, unit 1 to vertical edges from dark to light, unit 2 is dead."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(3, 2)
        weight = torch.zeros(3, 3, 3, 3)
        weight[RED, 0, 1, 1], weight[RED, 1:, 1, 1] = 1.0, -1.0
        weight[EDGE, :, :, 0], weight[EDGE, :, :, 2] = -1.0, 1.0
        self.conv.weight.data, self.conv.bias.data = weight, torch.tensor([0.0, 0.0, -100.0])
        self.pretrained_cfg = {"classifier": "head"}

    def forward(self, images):
        return self.head(self.act(self.conv(images)).mean((2, 3)))


@pytest.fixture
def detectors(monkeypatch):
    """Make `inspect` use `Detectors` instead of a backbone."""
    spec = InputSpec(
        channels=3,
        height=SIDE,
        width=SIDE,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        interpolation="nearest",
        crop_fraction=1.0,
    )
    backbone = Backbone(
        name="detectors", origin="handmade", build=lambda: Detectors().eval().requires_grad_(False), input=spec
    )
    preprocessing = Preprocessing(
        height=SIDE,
        width=SIDE,
        channels=3,
        fit="squash",
        crop_fraction=1.0,
        interpolation="nearest",
        mean=spec.mean,
        std=spec.std,
    )
    network = InspectedNetwork(
        name="detectors",
        backbone=backbone,
        origin="handmade",
        preprocessing=preprocessing,
        device=torch.device("cpu"),
    )
    monkeypatch.setattr(command, "load_inspected_network", lambda *_, **__: network)


def paint(path: Path, *, dot=None, edge=None, level=100, scale=1, **options):
    """Save a gray image with a red pixel at `dot` (x, y), or light to the right of x = `edge`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE, 3), level, np.uint8)
    if dot is not None:
        pixels[dot[1], dot[0]] = DOT
    if edge is not None:
        pixels[:, edge:] = 250
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(path, **options)


def test_units_find_the_features_they_detect(detectors, tmp_path):
    for number in range(10):
        paint(tmp_path / "d" / "dots" / f"{number}.png", dot=(2 * number + 4, 10), scale=2, level=100 - number)
        paint(tmp_path / "d" / "edges" / f"{number}.png", edge=2 * number + 5, level=60 - number)
    result = inspect(settings(tmp_path / "d", tmp_path / "out"))
    found = lines(tmp_path / "out")
    assert result.layers[0].of == 3
    assert sorted(result.layers[0].units) == [RED, EDGE]  # the third is dead
    red = [line for line in found if line["unit"] == RED]
    assert [line["rank"] for line in red] == list(range(1, 10))
    assert {line["label"] for line in red} == {"dots"}
    for line in red:
        number = int(Path(line["path"]).stem)
        x = 2 * number + 4
        assert line["position"] == [5, number + 2]
        assert line["box"] == [x - 1, 9, x + 2, 12]
        assert line["source_box"] == [2 * (x - 1), 18, 2 * (x + 2), 24]  # in the files, which are twice as large
        assert line["activation"] == pytest.approx((200 - 30 - 30) / 127.5 + 1, abs=1e-5)
    edges = [line for line in found if line["unit"] == EDGE and line["label"] == "edges"]
    assert len(edges) == 9
    for line in edges:
        assert line["box"][0] < 2 * int(Path(line["path"]).stem) + 5 < line["box"][2]


def test_copies_count_once_and_activations_descend(detectors, tmp_path):
    for number in range(6):
        paint(tmp_path / "d" / "a" / f"{number}.png", dot=(9, 9), level=50 + number)
        paint(tmp_path / "d" / "b" / f"copy{number}.png", dot=(9, 9), level=50 + number)
    result = inspect(settings(tmp_path / "d", tmp_path / "out"))
    assert result.copies == 6
    for unit in result.layers[0].units:
        own = [line for line in lines(tmp_path / "out") if line["unit"] == unit]
        assert len(own) == 6
        assert all(a["activation"] >= b["activation"] for a, b in itertools.pairwise(own))


def test_only_training_images_are_used_if_there_are_splits(detectors, tmp_path):
    for split in ("train", "test"):
        for number in range(3):
            paint(tmp_path / "d" / split / "a" / f"{number}.png", dot=(4, 4), level=40 + 9 * number + len(split))
            paint(tmp_path / "d" / split / "b" / f"{number}.png", edge=9, level=40 + number + len(split))
    result = inspect(settings(tmp_path / "d", tmp_path / "out"))
    assert result.images == 6
    assert all("/train/" in line["path"] for line in lines(tmp_path / "out"))


def test_boxes_of_a_rotated_image_are_upright(detectors, tmp_path):
    """The upright image, red at x = 4, y = 10 of the input, is stored rotated by 90 degrees."""
    for number in range(3):
        paint(tmp_path / "d" / "a" / f"{number}.png", level=90 + number)
    pixels = np.full((SIDE, 2 * SIDE, 3), 100, np.uint8)  # 64 wide and 32 high, upright
    pixels[10, 8:10] = DOT
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "d" / "b").mkdir()
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "d" / "b" / "turned.png", exif=exif)
    inspect(settings(tmp_path / "d", tmp_path / "out"))
    first = next(line for line in lines(tmp_path / "out") if line["unit"] == RED and line["rank"] == 1)
    assert first["path"].endswith("turned.png")
    assert first["box"] == [3, 9, 6, 12]
    assert first["source_box"] == [6, 9, 12, 12]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.rows += [row for name, value in attrs if name == "data-rows" for row in json.loads(value)]


def test_hostile_names_are_escaped(detectors, tmp_path):
    name = "<img src=x onerror=alert(1)>\"' &"
    for number in range(3):
        paint(tmp_path / "d" / name / f'{number}"><script>alert(2)<.png', dot=(8, 8), level=40 + number)
        paint(tmp_path / "d" / "b" / f"{number}.png", edge=8, level=40 + number)
    inspect(settings(tmp_path / "d", tmp_path / "out"))
    text = (tmp_path / "out" / "inspect.html").read_text(encoding="utf8")
    page = Tags()
    page.feed(text)
    assert page.tags.count("script") == 2
    assert page.tags.count("img") == 2  # the dialog's and the filters
    assert {row["label"] for row in page.rows} == {name, "b"}
    assert "<img src=x" not in text
    assert "http" not in text.split("<script")[0].replace("http-equiv", "")


def test_unreadable_images_are_listed(detectors, tmp_path, report):
    for number in range(3):
        paint(tmp_path / "d" / "a" / f"{number}.png", dot=(8, 8), level=40 + number)
        paint(tmp_path / "d" / "b" / f"{number}.png", edge=8, level=40 + number)
    (tmp_path / "d" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    result = inspect(settings(tmp_path / "d", tmp_path / "out"), report)
    assert [Path(path).name for path in result.failures] == ["broken.png"]
    assert result.to_json()["failed"] == 1
    assert report.warnings


def test_without_readable_images_nothing_is_written(detectors, tmp_path):
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "broken.png").write_bytes(b"no")
    (tmp_path / "d" / "b").mkdir()
    (tmp_path / "d" / "b" / "broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"can be used: .*: "):
        inspect(settings(tmp_path / "d", tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_only_our_own_output_is_replaced_and_only_with_overwrite(detectors, tmp_path):
    for number in range(3):
        paint(tmp_path / "d" / "a" / f"{number}.png", dot=(8, 8), level=40 + number)
        paint(tmp_path / "d" / "b" / f"{number}.png", edge=8, level=40 + number)
    inspect(settings(tmp_path / "d", tmp_path / "out"))
    with pytest.raises(UsageError, match="not empty"):
        inspect(settings(tmp_path / "d", tmp_path / "out"))
    (tmp_path / "out" / "units.jsonl").write_text("old")
    inspect(settings(tmp_path / "d", tmp_path / "out", overwrite=True))
    assert lines(tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        inspect(settings(tmp_path / "d", tmp_path / "out", overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "out"]

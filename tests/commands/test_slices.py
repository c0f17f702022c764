"""evaluate --by: slices by a column, by the paths, and by measured quantities; the page; and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tlcli.cli.main import run as tlcli
from tlcli.commands.evaluate import evaluate
from tlcli.errors import DataError, UsageError
from tlcli.settings import EvaluateSettings, TableColumns


@pytest.fixture(scope="module")
def labeled(photos, tmp_path_factory):
    """A table of `photos`, in which the labels of one camera are wrong, and one image has no camera."""
    root = tmp_path_factory.mktemp("labeled")
    rows = ["path,label,camera"]
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        new = root / f"{'abc'[number % 3]}_{number:02}.jpg"
        shutil.copy(path, new)
        label = path.parent.name
        camera = "" if number == 1 else "abc"[number % 3]
        wrong = {"disc": "square", "square": "stripes", "stripes": "disc"}[label]
        rows.append(f"{new.name},{wrong if camera == 'c' else label},{camera}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root / "labels.csv"


def evaluated(trained, data, **changes):
    return evaluate(EvaluateSettings(run=trained.run, data=data, **changes))


def slices_of(result):
    return {row["name"]: (row["images"], row["accuracy"] > 0.5, row["worse"]) for row in result["slices"]}


def test_by_a_column(trained, labeled):
    result = evaluated(trained, labeled, by="camera")
    assert result["by"] == "camera"
    assert list(slices_of(result)) == ["(none)", "a", "b", "c"]
    assert slices_of(result) == {
        "(none)": (1, True, False),
        "a": (15, True, False),
        "b": (14, True, False),
        "c": (15, False, True),
    }
    assert sum(row["correct"] for row in result["slices"]) == round(result["accuracy"] * 45)


def test_by_the_paths(trained, labeled):
    by_path = evaluated(trained, labeled, by=r"(\w)_\d+")
    assert slices_of(by_path) == {"a": (15, True, False), "b": (15, True, False), "c": (15, False, True)}


def test_by_the_classes_of_a_folder(trained, photos):
    assert slices_of(evaluated(trained, photos, by="^([^/]+)/")).keys() == {"disc", "square", "stripes"}


@pytest.fixture
def shades(tmp_path, photos):
    """Images of known brightness and size, at least four of each class."""
    for number, (side, level) in enumerate([(40, 20), (80, 20), (80, 200), (160, 200)] * 3):
        folder = tmp_path / "shades" / ("disc", "square", "stripes")[number // 4]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, 2 * side, 3), level, np.uint8)
        pixels[::2] += number  # so that no two files are equal, and some are sharper than others
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "shades"


def test_by_measured_quantities(trained, shades):
    sizes = evaluated(trained, shades, by="size")
    assert sizes["measure"] == "shorter side in pixels"
    found = [(row["name"], row["images"]) for row in sizes["slices"]]
    assert found == [("40 to 40", 3), ("80 to 80", 6), ("160 to 160", 3)]
    assert {row["name"] for row in evaluated(trained, shades, by="aspect")["slices"]} == {"2 to 2"}
    brightness = evaluated(trained, shades, by="brightness")["slices"]
    assert sum(row["images"] for row in brightness) == 12
    assert sorted(int(row["name"].split(".")[0].split(" ")[0]) // 100 for row in brightness) == [0, 0, 2, 2]
    assert len(evaluated(trained, shades, by="sharpness")["slices"]) > 1


def test_an_unreadable_image_is_in_no_slice(trained, shades):
    (shades / "disc" / "broken.jpg").write_bytes(b"not an image")
    result = evaluated(trained, shades, by="size")
    assert (result["failed"], sum(row["images"] for row in result["slices"])) == (1, 12)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("weather", "is not a table, so it has no columns. Expected brightness, size, sharpness, aspect, or"),
        ("(", "not a regular expression"),
        ("(nowhere)", "matches none"),
    ],
)
def test_what_cannot_be_a_slice_of_a_folder(trained, photos, by, message):
    with pytest.raises((UsageError, DataError)) as caught:
        evaluated(trained, photos, by=by)
    assert message in str(caught.value)
    assert "--by" in str(caught.value)


def test_a_missing_column_is_refused(trained, labeled):
    with pytest.raises((UsageError, DataError), match=r"^--by.*weather.*path, label, camera"):
        evaluated(trained, labeled, by="weather")


def test_options_without_effect_are_refused(trained, labeled, tmp_path):
    for changes in (
        {"out": tmp_path / "x.html"},
        {"by": "size", "overwrite": True},
        {"by": "size", "out": tmp_path / "x.csv"},
        {"by": "camera", "columns": TableColumns(group_column="camera")},
    ):
        with pytest.raises(UsageError):
            EvaluateSettings(run=trained.run, data=labeled, **changes)


def test_the_page_has_the_errors_of_worse_slices(trained, labeled, tmp_path, capsys):
    page = tmp_path / "slices.html"
    arguments = ["evaluate", str(trained.run), str(labeled), "--by", "camera", "--out", str(page)]
    assert tlcli([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["out"] == str(page)
    worse = next(row for row in result["slices"] if row["name"] == "c")
    html = page.read_text()
    assert html.count("<figure>") == worse["images"] - worse["correct"] > 10
    assert "c: " in html
    assert "http" not in html.replace("http-equiv", "")
    assert tlcli(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert tlcli([*arguments, "--overwrite"]) == 0
    assert "Slices    by camera" in capsys.readouterr().err


def test_nothing_is_written_within_the_data(trained, photos):
    with pytest.raises(UsageError):
        evaluated(trained, photos, by="size", out=photos / "slices.html")

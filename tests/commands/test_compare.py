"""compare: which images are compared, the page, and the errors."""

import json
import shutil

import pytest

from tlcli.cli.main import run as tlcli
from tlcli.commands.compare import compare
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.settings import (
    CacheSettings,
    CompareSettings,
    ComputeSettings,
    EvaluateSettings,
    FinetuneSettings,
    NetworkSettings,
    TableColumns,
    TrainingSettings,
)
from tlcli.settings.filters import PathPatterns


def train(data, out, *, seed=0, **options):
    """Fit the head of a small random network, which is fast."""
    network = NetworkSettings(backbone="lenet5", weights="none", seed=seed)
    return train_network(data, out, network, **options)


def train_network(data, out, network, **options):
    cache = CacheSettings(directory=out.parent / "cache")
    return finetune(FinetuneSettings(data=data, out=out, network=network, cache=cache, **options))


@pytest.fixture(scope="module")
def other(photos, tmp_path_factory):
    """A run with another backbone and depth on the same images, of which it holds out a part."""
    out = tmp_path_factory.mktemp("other") / "run"
    network = NetworkSettings(backbone="lenet5", weights="none", freeze="none")
    info = train_network(photos, out, network, training=TrainingSettings(epochs=1), validation_fraction=0.4)
    assert 5 < info["images"]["validation"] < 40
    return out


@pytest.fixture
def fresh(photos, tmp_path):
    """New images: those of `photos` with other digests."""
    for path in photos.rglob("*.jpg"):
        new = tmp_path / "fresh" / path.relative_to(photos)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(path.read_bytes() + b"another file")
    return tmp_path / "fresh"


def compared(a, b, report=None, **options):
    return compare(CompareSettings(run_a=a, run_b=b, **options), report)


def numbers(result):
    """The metrics without the flips, whose confidences depend on the sizes of batches in the last digits."""
    return {key: value for key, value in result.metrics.items() if key != "flips"}


def test_runs_are_compared_on_the_images_that_both_held_out(trained, other):
    info = json.loads((other / "run.json").read_text())
    result = compared(trained.run, other).to_json()
    assert result.keys() >= {
        "a",
        "b",
        "images",
        "accuracy_a",
        "accuracy_b",
        "difference",
        "interval",
        "p_value",
        "flips",
    }
    assert (result["a"], result["b"], result["split"]) == (str(trained.run), str(other), "all")
    assert result["images"] == info["images"]["validation"]
    assert result["accuracy_b"] == info["validation"]["accuracy"]
    low, high = result["interval"]
    assert low <= result["difference"] <= high
    assert result["difference"] == pytest.approx(result["accuracy_b"] - result["accuracy_a"])
    flips = result["flips"]
    assert len(flips["only_b"]) - len(flips["only_a"]) == pytest.approx(result["difference"] * result["images"])
    assert all(one["predicted_a"] == one["label"] != one["predicted_b"] for one in flips["only_a"])
    assert sum(row["images"] for row in result["per_class"].values()) == result["images"]


def test_exchanging_the_runs_exchanges_the_result(trained, other):
    forward, backward = compared(trained.run, other).metrics, compared(other, trained.run).metrics
    assert forward["difference"] == -backward["difference"]
    assert forward["p_value"] == backward["p_value"]
    assert (forward["only_a"], forward["only_b"]) == (backward["only_b"], backward["only_a"])


def test_a_run_does_not_differ_from_itself(trained):
    metrics = compared(trained.run, trained.run).metrics
    assert (metrics["images"], metrics["difference"], metrics["p_value"], metrics["images_needed"]) == (45, 0, 1, None)


def test_data_is_predicted_as_by_evaluate(trained, other, fresh):
    result = compared(trained.run, other, data=fresh).to_json()
    assert result["images"] == 45
    for run, key in ((trained.run, "accuracy_a"), (other, "accuracy_b")):
        assert result[key] == evaluate(EvaluateSettings(run=run, data=fresh))["accuracy"]


def test_training_images_of_either_run_are_left_out_of_data(trained, other, photos, fresh, report):
    shutil.copytree(photos, fresh, dirs_exist_ok=True)
    new = fresh / "disc" / "new.jpg"
    new.write_bytes((photos / "disc" / "00.jpg").read_bytes() + b"new")
    shutil.copy(new, new.with_name("copy.jpg"))
    result = compared(trained.run, other, report, data=fresh)
    assert result.metrics["images"] == 1, "copies count once"
    assert any("was trained on 45" in text and "left out" in text for text in report.notes)


def test_data_of_training_images_alone_is_an_error(trained, other, photos):
    with pytest.raises(DataError, match="no images that neither run was trained on: of 45 images"):
        compared(trained.run, other, data=photos)


def test_unreadable_images_are_listed(trained, other, fresh, capfd):
    (fresh / "disc" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert tlcli(["compare", str(trained.run), str(other), str(fresh), "--json"]) == 3
    result = json.loads(capfd.readouterr().out)
    assert (result["images"], result["failed"]) == (45, 1)
    assert result["failures"][0]["path"].endswith("broken.jpg")


@pytest.fixture(scope="module")
def tested(photos, tmp_path_factory):
    """Two runs on data with its own test images."""
    root = tmp_path_factory.mktemp("tested")
    for path in photos.rglob("*.jpg"):
        split = "train" if int(path.stem) < 7 else "val" if int(path.stem) < 11 else "test"
        target = root / "data" / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for seed in (0, 1):
        train(root / "data", root / f"run{seed}", seed=seed)
    return root


@pytest.mark.parametrize(
    ("split", "name", "images"), [(None, "test", 12), ("validation", "validation", 12), ("all", "all", 24)]
)
def test_test_images_come_first(tested, split, name, images):
    result = compared(tested / "run0", tested / "run1", split=split)
    assert (result.split, result.metrics["images"]) == (name, images)
    with_data = compared(tested / "run0", tested / "run1", split=split, data=tested / "data")
    assert (with_data.split, numbers(with_data)) == (name, numbers(result))


@pytest.mark.parametrize("split", ["test", "val"])
def test_held_out_copies_of_training_images_are_left_out(tested, tmp_path, report, split):
    shutil.copytree(tested / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data/train/disc/00.jpg", tmp_path / "data" / split / "disc/copy.jpg")
    train(tmp_path / "data", tmp_path / "run")
    assert compared(tmp_path / "run", tmp_path / "run", report, split="all").metrics["images"] == 24
    assert any("left out 1 held-out image with an identical copy in training" in text for text in report.notes)


def test_images_with_another_label_are_left_out(tested, tmp_path, report):
    shutil.copytree(tested / "data", tmp_path / "data")
    for number in ("11", "12"):
        name = f"{number}.jpg"
        (tmp_path / "data/test/disc" / name).rename(tmp_path / "data/test/square" / f"was-disc-{name}")
    train(tmp_path / "data", tmp_path / "run")
    assert compared(tested / "run0", tmp_path / "run", report).metrics["images"] == 10
    assert any("different labels for 2 of 24 common images" in text for text in report.warnings)


def test_different_classes_are_an_error(trained, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "data")
    (tmp_path / "data" / "disc").rename(tmp_path / "data" / "circle")
    train(tmp_path / "data", tmp_path / "run")
    with pytest.raises(ArtifactError, match=r"only in .*: 'disc'; only in .*: 'circle'"):
        compared(trained.run, tmp_path / "run")


@pytest.mark.slow
def test_no_common_images_are_an_error(trained, fresh, tmp_path):
    train(fresh, tmp_path / "run")
    with pytest.raises(DataError, match=r"no held-out images in common: .* tlcli compare .* DATA"):
        compared(trained.run, tmp_path / "run")


def test_a_damaged_run_is_refused(trained, tmp_path):
    shutil.copytree(trained.run, tmp_path / "run")
    with (tmp_path / "run" / "predictions.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"predictions\.parquet was changed"):
        compared(trained.run, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": PathPatterns(exclude=("x",))}, "--include and --exclude would have no effect"),
        ({"columns": TableColumns(label_column="x")}, "--label-column would have no effect"),
        ({"compute": ComputeSettings(device="cpu")}, "--device, --engine, and --batch-size would have no effect"),
        ({"split": "train"}, "--split train needs DATA"),
    ],
)
def test_options_without_effect_are_errors(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        CompareSettings(run_a=tmp_path, run_b=tmp_path, **options)


def test_the_page_shows_the_flipped_images(trained, other, tmp_path, capfd):
    page = tmp_path / "compare.html"
    command = ["compare", str(trained.run), str(other), "--out", str(page)]
    assert tlcli(command) == 0
    output = capfd.readouterr()
    assert output.out == ""
    assert "exact McNemar test: p = " in output.err
    assert "Page" in output.err
    text = page.read_text()
    flips = compared(trained.run, other).metrics["flips"]
    assert text.count("<figure>") == len(flips["only_a"]) + len(flips["only_b"]) > 0
    assert all(one["path"] in text for one in flips["only_a"])
    assert tlcli(command) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert tlcli([*command, "--overwrite", "--quiet"]) == 0
    assert tlcli([*command[:3], "--out", str(trained.run / "compare.html")]) == 2
    assert "is inside the run" in capfd.readouterr().err

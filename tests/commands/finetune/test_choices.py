"""finetune --fit, --size, --backbone, and --augment auto on drawn images whose classes planted effects tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tail_runs import settings_for

from tlcli.backbones import zoo
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.errors import UsageError
from tlcli.progress import Silent
from tlcli.runs.directory import CHECKPOINTS
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, CheckSettings, FinetuneSettings, NetworkSettings, PredictSettings
from tlcli.training.choices import augmentation, network_input
from tlcli.training.head.class_weights import UNWEIGHTED
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.train import OpenedRun, choose_settings

PER_CLASS = 40


def draw_strips(root):
    """Draw wide images: a bright square at the left end, or at the right end, that a center crop cuts off."""
    generator = np.random.default_rng(0)
    for label, left in (("left", 4), ("right", 100)):
        (root / label).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = generator.integers(60, 140, (40, 120, 3)).astype(np.uint8)
            top = generator.integers(2, 20)
            pixels[top : top + 16, left : left + 16] = generator.integers(200, 256, 3)
            Image.fromarray(pixels).save(root / label / f"{number}.png")


@pytest.fixture(scope="module")
def strips(shared_folder):
    return shared_folder("strips", lambda root: draw_strips(root / "data")) / "data"


@pytest.fixture(scope="module")
def fitted(strips, cache, tmp_path_factory):
    """A run with --fit auto, and its `run.json`."""
    out = tmp_path_factory.mktemp("fitted") / "run"
    settings = settings_for(strips, out, cache, "all", network={"fit": "auto"}, training={"epochs": None})
    return settings, finetune(settings)


def tried(choice):
    return [row["value"] for row in choice["tried"]]


def test_the_fit_that_shows_the_whole_image_is_chosen(fitted):
    _, info = fitted
    choice = info["choices"]["fit"]
    assert choice["chosen"] == "squash"
    assert tried(choice) == list(network_input.FITS)
    crop, squash, _ = choice["tried"]
    assert squash["gain"] > choice["clear"] * squash["gain_error"]
    assert crop["accuracy"] < 0.8 < squash["accuracy"]
    assert info["preprocessing"]["fit"] == "squash"
    assert info["settings"]["fit"] == "auto"


def test_prediction_uses_the_chosen_fit(fitted, strips):
    settings, _ = fitted
    assert load_run(settings.out).preprocessing.fit == "squash"
    rows = predict(PredictSettings(run=settings.out, inputs=(str(strips),))).rows
    correct = [row["label"] == row["path"].split("/")[-2] for row in rows]
    assert np.mean(correct) > 0.9


def test_the_choice_depends_on_neither_cache_nor_order_of_commands(fitted, tmp_path):
    settings, info = fitted
    again = finetune(replace(settings, out=tmp_path / "run", cache=CacheSettings(enabled=False)))
    for name in ("chosen", "images", "folds"):
        assert again["choices"]["fit"][name] == info["choices"]["fit"][name]
    losses = [[row["loss"] for row in one["choices"]["fit"]["tried"]] for one in (again, info)]
    assert losses[0] == losses[1]


def test_resuming_a_finished_run_compares_what_was_typed(fitted):
    settings, info = fitted
    assert finetune(replace(settings, resume=True))["choices"] == info["choices"]


def opened(settings, directory):
    return OpenedRun(
        settings=settings, out=directory, directory=directory, dataset=None, intensity=None, weighting=UNWEIGHTED
    )


def test_an_unfinished_run_keeps_its_choices(fitted, tmp_path):
    settings, info = fitted
    Checkpoints(tmp_path / CHECKPOINTS, {"choices": info["choices"]}, resume=False, report=Silent())
    found = choose_settings(opened(replace(settings, resume=True), tmp_path), Silent())  # there is no dataset to use
    assert found.choices == info["choices"]
    assert found.resolved.network.fit == "squash"
    assert found.settings.network.fit == "auto"


def test_few_images_keep_the_defaults(photos, cache, tmp_path, report):
    network = {"fit": "auto", "size": "auto"}
    settings = settings_for(photos, tmp_path / "run", cache, "all", network=network, training={"epochs": None})
    choices = finetune(settings, report)["choices"]
    assert choices["fit"]["chosen"] == "crop"
    assert choices["size"]["chosen"] == choices["size"]["own"] == 224
    assert [note for note in report.notes if "nothing is compared" in note]


def test_mirroring_is_not_chosen_where_it_makes_another_class(strips, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation, "SINGLES", [("mirror", True), ("noise", 4.0)])
    network, training = {"fit": "squash"}, {"epochs": None}
    settings = settings_for(
        strips, tmp_path / "run", cache, "all", network=network, training=training, augmentation="auto"
    )
    choice = finetune(settings)["choices"]["augmentation"]
    none, mirror, *_ = choice["tried"]
    assert (none["value"], mirror["value"]) == ("none", "mirror")
    assert mirror["gain"] < 0
    assert not (choice["chosen"] or {}).get("mirror")


@pytest.mark.slow
def test_backbone_and_size_are_compared(strips, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "local_backbones", lambda: ["tf_efficientnet_lite0", "tf_efficientnet_lite1"])
    monkeypatch.setattr(network_input, "SIZES", (232,))
    settings = settings_for(strips, tmp_path / "run", cache, "all", training={"epochs": None})
    network = NetworkSettings(backbone="auto", size="auto", fit="pad")
    info = finetune(replace(settings, network=network))
    assert tried(info["choices"]["backbone"]) == ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    assert info["backbone"] == info["choices"]["backbone"]["chosen"]
    assert info["preprocessing"]["width"] == info["choices"]["size"]["chosen"]
    assert info["settings"]["backbone"] == info["settings"]["size"] == "auto"


@pytest.mark.slow
def test_freeze_auto_compares_fits_first(strips, cache, tmp_path):
    settings = settings_for(strips, tmp_path / "run", cache, "auto")
    info = finetune(settings)
    assert info["settings"]["fit"] == "auto"
    assert info["choices"]["fit"]["chosen"] == info["preprocessing"]["fit"] == "squash"
    fixed = finetune(replace(settings, out=tmp_path / "fixed", network=replace(settings.network, fit="pad")))
    assert fixed["choices"] is None
    assert fixed["preprocessing"]["fit"] == "pad"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"fit": "auto", "weights": "none"}, "--fit auto cannot be combined with --weights none"),
        ({"size": "auto", "weights": "none"}, "--size auto cannot be combined with --weights none"),
        ({"backbone": "auto", "weights": "file.pth"}, "--backbone auto cannot be combined with --weights file.pth"),
        ({"backbone": "auto", "freeze": "blocks.3"}, "--backbone auto cannot be combined with --freeze blocks.3"),
    ],
)
def test_choices_that_cannot_be_measured_are_refused(photos, network, message):
    with pytest.raises(UsageError, match=message):
        FinetuneSettings(data=photos, network=NetworkSettings(**network))


@pytest.mark.parametrize("network", [{"fit": "auto"}, {"size": "auto"}, {"backbone": "auto"}])
def test_other_commands_refuse_auto(photos, network):
    with pytest.raises(UsageError, match="auto is an option of finetune"):
        CheckSettings(data=photos, network=NetworkSettings(**network))

"""Later layers are trained from the head and tail of a run: kept, new, removed, and renamed classes."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from continued_runs import CUT, continue_from, with_class

from tlcli.errors import UsageError
from tlcli.runs.run import load_run

STILL = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
"""Training that changes nothing."""


def held_out(run):
    """Return the probabilities of the images that a run held out, by digest."""
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    return {row["digest"]: row["probabilities"] for row in rows if row["split"] == "validation"}


def head_of(run):
    return load_run(run).weights()["classifier.weight"]


def test_training_starts_from_the_head_and_tail_of_the_run(photos, tuned, tmp_path, report):
    continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", CUT, training=STILL, report=report)
    before, after = held_out(tuned), held_out(tmp_path / "run")
    assert before.keys() == after.keys(), "the same images are held out"
    assert {digest: np.argmax(row) for digest, row in after.items()} == {
        digest: np.argmax(row) for digest, row in before.items()
    }
    weights, parent = load_run(tmp_path / "run").weights(), load_run(tuned)
    for name, tensor in parent.weights().items():
        scale = parent.temperature if name.startswith("classifier.") else 1
        torch.testing.assert_close(weights[name] * scale, tensor, rtol=1e-4, atol=1e-5)
    assert not [text for text in report.warnings if "too high" in text]


def test_more_epochs_lower_the_loss(photos, tuned, tmp_path):
    before = load_run(tuned).info["validation"]["loss"]
    after = continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", CUT, training={"epochs": 6})
    assert after["training"]["tried"][0]["best_epoch"] > 0
    assert after["validation"]["loss"] < before


def test_a_new_class_gets_a_row_and_the_others_keep_theirs(photos, tuned, draw, tmp_path, report):
    data = with_class(photos, tmp_path / "photos", draw)
    cache = tmp_path / "cache"
    info = continue_from(tuned, data, tmp_path / "run", cache, CUT, training=STILL, report=report)
    assert info["classes"] == ["disc", "noise", "square", "stripes"]
    assert f"Classes   3 of {tuned}; 1 new: noise" in report.notes
    kept = head_of(tmp_path / "run")[[0, 2, 3]] * load_run(tuned).temperature
    torch.testing.assert_close(kept, head_of(tuned), rtol=1e-4, atol=1e-5)
    assert info["validation"]["per_class"]["noise"]["recall"] > 0.5, "the fitted row finds images of the new class"


def test_removed_and_renamed_classes(photos, tuned, tmp_path, report):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    shutil.rmtree(data / "stripes")
    (data / "disc").rename(data / "zero")
    changes = {"training": STILL, "rename": ("disc=zero",), "report": report}
    info = continue_from(tuned, data, tmp_path / "run", tmp_path / "cache", CUT, **changes)
    assert info["classes"] == ["square", "zero"]
    assert f"Classes   2 of {tuned}; 1 renamed: disc to zero; 1 dropped: stripes" in report.notes
    kept = head_of(tmp_path / "run") * load_run(tuned).temperature
    torch.testing.assert_close(kept, head_of(tuned)[[1, 0]], rtol=1e-4, atol=1e-5)
    assert info["settings"]["rename"] == ["disc=zero"]


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (("circle=disc",), "expected OLD=NEW with a class of the run"),
        (("disc=circle",), "expected OLD=NEW with a class of the run"),
        (("disc",), "expected OLD=NEW"),
        (("disc=square", "disc=stripes"), "disc is renamed twice"),
        (("disc=square",), "already has a class square"),
    ],
)
def test_renames_that_are_refused(photos, tuned, tmp_path, rename, message):
    with pytest.raises(UsageError, match=message):
        continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", rename=rename)
    assert not (tmp_path / "run").exists()


def test_classes_can_swap_their_names(photos, tuned, tmp_path, report):
    swap = {"rename": ("disc=square", "square=disc"), "report": report}
    continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", **swap)
    assert f"Classes   3 of {tuned}; 2 renamed: square to disc, disc to square" in report.notes


def test_rename_needs_a_run(photos, tmp_path):
    with pytest.raises(UsageError, match="no effect without --backbone RUN"):
        continue_from("lenet5", photos, tmp_path / "run", tmp_path / "cache", rename=("disc=circle",))


def test_images_that_the_layers_have_seen_are_no_fair_test(photos, tuned, tmp_path, report):
    continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", report=report)
    (warning,) = [text for text in report.warnings if "too high" in text]
    held = len(held_out(tuned))
    assert warning.startswith(f"{45 - held} images that are held out were training images of {tuned}")
    assert "with --validation-fraction 0.2" in warning


def test_a_head_that_has_seen_the_held_out_images_is_not_continued(photos, trained, draw, tmp_path):
    """`trained` was refitted on all images, so that its head would look better than any epoch."""
    data, still = with_class(photos, tmp_path / "photos", draw), {"epochs": 1, "learning_rate": 1e-12}
    info = continue_from(trained.run, data, tmp_path / "run", trained.cache, "blocks.6.0", training=still)
    scaled = head_of(tmp_path / "run")[[0, 2, 3]] * load_run(trained.run).temperature
    assert not np.allclose(scaled, head_of(trained.run), rtol=1e-3)
    held_out_images = {name: row["images"] for name, row in info["validation"]["per_class"].items()}
    assert sum(count > 0 for count in held_out_images.values()) > 1, "not only images of the new class"

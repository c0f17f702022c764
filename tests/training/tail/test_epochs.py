"""How many epochs each depth gets, within a budget of work or of time."""

import time
from dataclasses import replace

import pytest
import torch
from searches import Notes, pretrained, settings_for, train, weights_of

from tlcli.progress import Silent
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail.depths import CandidateDepth
from tlcli.training.tail.epochs import EpochPlan
from tlcli.training.tail.probe import DepthCost
from tlcli.training.tail.recipe import EPOCHS, TailOptions


def plan_for(freeze, seconds, *, cost=None, refit=False, passes=1.0, crossed=False, report=None):
    """A plan for 3,200 images and three depths, with `seconds` left; None without a deadline."""
    options = TailOptions(
        freeze=freeze,
        pretrained=True,
        epochs=None,
        learning_rate=None,
        weight_decay=None,
        patience=None,
        batch_size=32,
        precision="fp32",
        augmentation=None,
        default_augmentation=None,
        views=None,
        weighting=ClassWeighting(),
        chosen_validation=True,
        refit=refit,
        seed=0,
        deadline=None if seconds is None else time.monotonic() + seconds,
    )
    names = (freeze,) if freeze != "auto" else ("16", "13", "none")
    candidates = [CandidateDepth(freeze=name, share=share) for name, share in zip(names, (0.1, 0.3, 1.0), strict=False)]
    return EpochPlan(
        options=options,
        candidates=candidates,
        images=3200,
        passes=passes,
        cross_validated=crossed,
        cost=lambda _: cost or DepthCost(once=10, epoch=20),
        report=report or Silent(),
    )


def test_without_a_deadline_nothing_is_measured():
    plan = replace(plan_for("auto", None), cost=None)
    assert plan.epochs(0, 0.0) >= 1


def test_time_limits_the_epochs():
    assert plan_for("13", None).epochs(0, 0.0) == EPOCHS
    assert plan_for("13", 1e4).epochs(0, 0.0) == EPOCHS
    assert plan_for("13", 75).epochs(0, 0.0) == 3
    assert plan_for("13", 75, passes=2.0).epochs(0, 0.0) == 1
    assert plan_for("13", 75, refit=True).epochs(0, 0.0) == 2
    assert plan_for("13", 75, crossed=True).epochs(0, 0.0) == 1, "trained again on all images"
    assert plan_for("13", 75).epochs(0, 0.0, repeat_seconds=20.0) == 2


def test_depths_share_the_time_that_is_left():
    assert plan_for("auto", 10 + 3 * 45).epochs(0, 0.0) == 2
    assert plan_for("auto", 10 + 3 * 45).epochs(2, 0.0) == 1  # the last one has time for six, but work for one
    assert plan_for("auto", 10 + 25).epochs(0, 0.0) == 1


def test_a_depth_that_does_not_fit_is_not_begun():
    report = Notes()
    assert plan_for("auto", 25, report=report).epochs(1, 0.0) == 0
    assert "30 s" in report.notes[0]
    assert "25 s" in report.notes[0]


def test_training_that_runs_late_stops_and_keeps_the_best_weights(photos, tmp_path, monkeypatch):
    """The estimates are far too low, and time is up after the third step of the only depth."""
    settings = settings_for(photos, tmp_path, freeze="none", epochs=3)
    settings = replace(settings, budget="1h", validation_fraction=0.3)
    steps = []

    def past(self):
        steps.append(self.state.step)
        return len(steps) >= 3

    monkeypatch.setattr("tlcli.training.tail.loop.TailTrainer._past_deadline", past)
    classifier = train(settings, tmp_path / "run")
    assert len(classifier.lines) < 3
    assert classifier.validation is not None
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(classifier).values())


@pytest.mark.slow
def test_folds_that_do_not_end_in_time_leave_the_head(photos, tmp_path, monkeypatch):
    """All folds must be trained to compare a depth with the head."""
    calls = []
    monkeypatch.setattr("tlcli.training.tail.loop.TailTrainer._past_deadline", lambda _: calls.append(1) or True)
    report = Notes()
    classifier = train(replace(pretrained(photos, tmp_path), budget="1h"), tmp_path / "run", report)
    assert classifier.extractor.cut.layer == classifier.extractor.cut.of
    assert any("before all folds" in note for note in report.notes)
    assert calls


@pytest.mark.slow
def test_a_probe_changes_no_weights(photos, tmp_path):
    """The same training, whether the epochs come from a budget that is long enough or from the user."""
    settings = pretrained(photos, tmp_path)
    plain = train(settings, tmp_path / "plain")
    probed = train(replace(settings, budget="2h"), tmp_path / "probed")
    for name, tensor in weights_of(plain).items():
        assert torch.equal(tensor, weights_of(probed)[name]), name

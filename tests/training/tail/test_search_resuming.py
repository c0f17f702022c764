"""An interrupted search ends like an uninterrupted one."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
import torch
from searches import Stop, Stopping, pretrained, settings_for, train, weights_of
from tail_trainers import timeless

from tlcli.errors import ArtifactError
from tlcli.training.tail import checkpoints


@pytest.mark.slow
def test_an_interrupted_search_in_folds_ends_like_an_uninterrupted_one(photos, tmp_path, monkeypatch, last_kept):
    """With a checkpoint after every third step: each writes all weights."""
    save, steps = checkpoints.Checkpoints.save_if_due, count()

    def save_sometimes(self, make, *, now=False):
        save(self, make, now=now or next(steps) % 3 == 0)

    monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", save_sometimes)
    settings = pretrained(photos, tmp_path)
    whole = train(settings, tmp_path / "whole")
    settings, stopped = replace(settings, resume=True), 0
    for after in (0, 0, 2):
        try:
            train(settings, tmp_path / "run", Stopping(after, "  fold"))
        except Stop:
            stopped += 1
    assert stopped == 3
    again = train(settings, tmp_path / "run")
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(again)[name]), name
    assert timeless(again.lines) == timeless(whole.lines)
    assert timeless(again.training["tried"]) == timeless(whole.training["tried"])
    assert again.validation.metrics == whole.validation.metrics
    assert again.novelty.novelty.to_bytes() == whole.novelty.novelty.to_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [False, True])
def test_an_interrupted_search_ends_like_an_uninterrupted_one(photos, tmp_path, monkeypatch, request, is_kept):
    """Stopped again and again, within a depth, between depths, and in the last training on all images."""
    if is_kept:
        request.getfixturevalue("always_kept")
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    settings = settings_for(photos, tmp_path, epochs=4)
    whole = train(settings, tmp_path / "whole")
    epochs = len(whole.lines)
    stopped = 0
    for after in (0, 1, 0, *((epochs - 4,) if is_kept else (2,))):
        settings = replace(settings, resume=True)
        try:
            train(settings, tmp_path / "run", Stopping(after))
        except Stop:
            stopped += 1
    assert stopped > 1
    again = train(settings, tmp_path / "run")
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(again)[name]), name
    assert timeless(again.lines) == timeless(whole.lines)
    assert timeless(again.training["tried"]) == timeless(whole.training["tried"])
    assert again.training["best"] == whole.training["best"]
    assert again.calibration.temperature == whole.calibration.temperature
    assert again.validation.metrics == whole.validation.metrics


def test_resuming_at_another_depth_is_refused(photos, tmp_path):
    settings = settings_for(photos, tmp_path, freeze="2", epochs=1)
    train(settings, tmp_path / "run")
    deeper = replace(settings, resume=True, network=replace(settings.network, freeze="3"))
    with pytest.raises(ArtifactError, match="freeze was '2' and is '3'"):
        train(deeper, tmp_path / "run")

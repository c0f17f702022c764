"""The head is the same whether its features lie in memory or on disk."""

from __future__ import annotations

import numpy as np
import pytest

from tlcli.commands.finetune import finetune
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import PRESETS
from tlcli.training.head import fit, standardization


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [None, 0.4])
def test_features_on_disk_give_the_head_of_features_in_memory(photos, tmp_path, monkeypatch, fraction):
    monkeypatch.setattr(standardization, "BLOCK", 20)  # so that blocks lie across the end of a view
    weights, infos = {}, {}
    for name, limit in (("memory", fit.IN_MEMORY), ("disk", 0)):
        monkeypatch.setattr(fit, "IN_MEMORY", limit)
        infos[name] = finetune(
            FinetuneSettings(
                data=photos,
                out=tmp_path / name,
                network=NetworkSettings(backbone="lenet5", weights="none"),
                training=TrainingSettings(views=4),
                augmentation=PRESETS["light"],
                validation_fraction=fraction,
                compute=ComputeSettings(workers=2, engine="torch"),
                cache=CacheSettings(directory=tmp_path / "cache"),
            )
        )
        weights[name] = load_run(tmp_path / name).weights()["head.weight"].numpy()
    assert infos["disk"]["head"]["l2"] == infos["memory"]["head"]["l2"]
    assert infos["disk"]["validation"]["confusion"] == infos["memory"]["validation"]["confusion"]
    assert infos["disk"]["validation"]["loss"] == pytest.approx(infos["memory"]["validation"]["loss"], rel=1e-2)
    np.testing.assert_allclose(weights["disk"], weights["memory"], atol=0.03 * np.abs(weights["memory"]).max())

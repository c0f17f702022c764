"""finetune refuses options that have no effect, and freeze depths that do not exist."""

from __future__ import annotations

import pytest
from tail_runs import settings_for

from tlcli.commands.finetune import finetune
from tlcli.errors import UsageError
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import PRESETS


@pytest.mark.parametrize("option", ["epochs", "learning_rate", "weight_decay", "patience"])
def test_training_options_are_refused_with_freeze_all(photos, option):
    flag = f"--{option.replace('_', '-')} has no effect with --freeze all"
    with pytest.raises(UsageError, match=flag):
        FinetuneSettings(data=photos, training=TrainingSettings(**{option: 1}))


@pytest.mark.parametrize(
    ("freeze", "augmentation", "views", "message"),
    [
        ("all", PRESETS["light"], None, "augmentation needs --views"),
        ("all", None, 2, "--views has no effect without augmentation"),
        ("7", None, 2, "--views has no effect without augmentation"),
        ("7", PRESETS["none"], 2, "--views has no effect without augmentation"),
        ("none", PRESETS["light"], 2, "--views has no effect with --freeze none"),
        ("auto", PRESETS["none"], 2, "--views has no effect without augmentation"),
    ],
)
def test_views_and_augmentation_without_effect_are_refused(photos, freeze, augmentation, views, message):
    with pytest.raises(UsageError, match=message):
        FinetuneSettings(
            data=photos,
            network=NetworkSettings(freeze=freeze),
            augmentation=augmentation,
            training=TrainingSettings(views=views),
        )


def test_views_without_a_cache_are_refused(photos):
    with pytest.raises(UsageError, match="--views has no effect with --no-cache"):
        FinetuneSettings(
            data=photos,
            network=NetworkSettings(freeze="7"),
            augmentation=PRESETS["light"],
            training=TrainingSettings(views=2),
            cache=CacheSettings(enabled=False),
        )


@pytest.mark.parametrize("freeze", ["none", "auto", "7"])
def test_batch_size_one_is_refused(photos, freeze):
    with pytest.raises(UsageError, match="--batch-size is 1"):
        FinetuneSettings(data=photos, network=NetworkSettings(freeze=freeze), compute=ComputeSettings(batch_size=1))


@pytest.mark.parametrize(
    ("freeze", "changes", "message"),
    [
        ("blocks.99", {}, "no layer with this name"),
        ("400", {}, "no such layer"),
        ("18", {}, "--epochs has no effect with --freeze all"),
        ("18", {"training": {"epochs": None}, "augmentation": PRESETS["light"]}, "augmentation needs --views"),
    ],
)
def test_invalid_freeze_depths_leave_no_files(photos, cache, tmp_path, freeze, changes, message):
    """Layer 18 is the last one, so `--freeze 18` freezes everything, like `all`."""
    with pytest.raises(UsageError, match=message):
        finetune(settings_for(photos, tmp_path / "run", cache, freeze, **changes))
    assert not list(tmp_path.iterdir())

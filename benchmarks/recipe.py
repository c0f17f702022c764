"""Compare the recipe for tails with alternatives, one change at a time.

usage: python benchmarks/recipe.py DATA LAYER [EPOCHS]      (default: 4 epochs)
Choose by validation; the test accuracy shows how reliable validation is.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

from tlcli.commands.finetune import finetune
from tlcli.settings import FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.training.tail import search
from tlcli.training.tail.recipe import make_recipe

VARIANTS = {
    "current": {},
    "trained BatchNorm statistics": {"fixed_statistics": False},
    "learning rate 0.0003": {"learning_rate": 3e-4},
    "learning rate 0.003": {"learning_rate": 3e-3},
    "layer decay 0.75": {"layer_decay": 0.75},
    "layer decay 1": {"layer_decay": 1.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "fp32": {"precision": "fp32"},
}

data, layer, epochs = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["4"])[0])
print("| recipe | validation loss | validation accuracy | test accuracy | seconds |\n|---|---|---|---|---|")
for name, changes in VARIANTS.items():

    def changed(*arguments, _changes=changes, **options):
        return dataclasses.replace(make_recipe(*arguments, **options), **_changes)

    search.make_recipe = changed
    with tempfile.TemporaryDirectory() as folder:
        settings = FinetuneSettings(
            data=Path(data),
            out=Path(folder) / "run",
            network=NetworkSettings(freeze=layer),
            training=TrainingSettings(epochs=epochs),
        )
        info = finetune(settings)
    validation, test = info["validation"], info["test"]
    figures = f"{validation['loss']:.3f} | {100 * validation['accuracy']:.1f} % | {100 * test['accuracy']:.1f} %"
    print(f"| {name} | {figures} | {info['seconds']['training']:.0f} |", flush=True)

"""Suggest the option that was probably meant by an unknown one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

NAMES_ELSEWHERE = {
    "--augment": "aug augmentation augmentations augs",
    "--backbone": "a arch architecture base-model m model model-name net network pretrained-model",
    "--balance": "balanced class-balance",
    "--batch-size": "b batch bs mini-batch per-device-batch-size",
    "--cache": "cache-dir cache-folder",
    "--class-weight": "class-weights weighted weights-per-class",
    "--color-shift": "color color-jitter jitter",
    "--device cpu": "cpu no-cuda no-gpu",
    "--device cuda": "cuda gpu gpus use-gpu",
    "--epochs": "e epoch max-epochs n-epochs nb-epochs num-epochs num-train-epochs",
    "--flip-vertical": "v-flip vertical-flip",
    "--freeze": "freeze-backbone freeze-layers frozen n-freeze unfreeze",
    "--group-by": "group groups",
    "--json": "output-json",
    "--learning-rate": "base-lr eta initial-lr learn-rate lr lr-rate lr0 max-lr rate",
    "--min-confidence": "conf conf-thres confidence confidence-threshold min-conf threshold",
    "--mirror": "flip h-flip horizontal-flip",
    "--out": "dest destination o outdir outfile output output-dir output-file output-folder save save-dir save-path",
    "--overwrite": "exist-ok f force replace",
    "--patience": "early-stop early-stopping",
    "--precision bf16": "bfloat16 bf16",
    "--precision fp16": "amp fp16 half mixed-precision",
    "--quiet": "q silent",
    "--resume": "continue restart",
    "--rotate": "degrees rotation rotation-range",
    "--seed": "random-seed random-state",
    "--size": "image-size img-size imgsz input-size resize resolution",
    "--top": "k top-k",
    "--validation-fraction": "test-size val-fraction val-frac val-percent val-ratio val-size val-split valid-pct "
    "validation-ratio validation-size validation-split",
    "--verbose": "debug v",
    "--weight-decay": "decay l2 wd",
    "--workers": "cores j jobs n-jobs n-workers nproc num-processes num-workers processes threads",
}
"""Names that other programs use, by the option that does the same here."""

CLOSE = 0.75
"""Share of letters that must be the same in a misspelled name."""


def suggest(wrong: str, options: Collection[str], arguments: Sequence[str] = ()) -> str | None:
    """Return the option, with its value where the name implies it, that was probably meant.

    Args:
        wrong: The unknown option, such as `--lr`.
        options: The options of the command.
        arguments: The whole command line; for `-lr`, click reports `-l`.
    """
    if not wrong.startswith("--"):
        wrong = next((text for text in arguments if text.startswith(wrong)), wrong)
    name = _letters(wrong)
    spelled = {_letters(option): option for option in options}
    if name in spelled:
        return spelled[name]
    for meant, names in NAMES_ELSEWHERE.items():
        if name in map(_letters, names.split()) and meant.split()[0] in options:
            return meant
    beginning = [option for key, option in spelled.items() if len(name) > 2 and key.startswith(name)]
    if len(beginning) == 1:
        return beginning[0]
    return next((spelled[key] for key in difflib.get_close_matches(name, spelled, n=1, cutoff=CLOSE)), None)


def _letters(option: str) -> str:
    """Return an option's name in lowercase, without dashes, underscores, and value."""
    return re.sub(r"[-_]", "", option.partition("=")[0]).lower()

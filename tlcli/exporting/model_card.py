"""The model card: what a network was made of, how good it is, how to use it; Markdown, as model hubs show it."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from tlcli.runs.run import Run

MARKS = re.compile(r"([\\`*_{}\[\]#|~])")
"""What Markdown would take for more than text."""

STARTS = {"pretrained": "pretrained weights", "none": "random weights"}
"""Where training began, by `--weights`."""

USAGE = """```python
import timm
import torch
from PIL import Image

model = timm.create_model({source}, pretrained=True).eval()  # once uploaded: "hf-hub:YOU/NAME"
transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
image = Image.open("image.jpg").convert("{mode}")
with torch.inference_mode():
    logits = model(transform(image)[None])[0]
probabilities = ({scores}).softmax(0)
label = int(logits.argmax())
print(model.pretrained_cfg["label_names"][label], float(probabilities[label]))
```"""


def model_card(run: Run, name: str) -> str:
    """A run's `README.md`.

    Args:
        run: The run.
        name: Of the folder that the card lies in.
    """
    info = run.info
    parts = [
        _front_matter(info, name),
        f"# {_text(name)}\n",
        f"Tells {len(run.classes)} classes of images apart: {', '.join(map(_text, run.classes))}.\n",
        _training(info),
        *(_figures(info, split) for split in ("test", "validation") if info.get(split)),
        "## Use\n",
        _usage(run, name),
        "\nThe division by the temperature"
        + (" and the sum with the logarithms of the classes' frequencies turn" if info["log_prior"] else " turns")
        + " scores into probabilities that can be believed, for images like those it was trained on. It answers with "
        "one of its classes whatever it is shown.\n",
        f"Made by tlcli {_text(info['tlcli'])}, torch {_text(info['versions']['torch'])}, "
        f"timm {_text(info['versions']['timm'])}.\n",
    ]
    return "\n".join(parts)


def _text(value: object) -> str:
    """Text in which Markdown and HTML see nothing but text, on one line."""
    shown = "".join(sign if sign.isprintable() or sign == " " else ascii(sign)[1:-1] for sign in str(value))
    return MARKS.sub(r"\\\1", html.escape(shown, quote=False))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _front_matter(info: dict[str, Any], name: str) -> str:
    """What hubs read: JSON, which is YAML too."""
    judged = info.get("test") or info["validation"]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": "the images it was trained for", "type": "imagefolder"},
        "metrics": [
            {"type": "accuracy", "value": round(judged["accuracy"], 4)},
            {"type": "f1", "value": round(judged["macro_f1"], 4), "name": "macro F1"},
        ],
    }
    content = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "transfer-learning", "tlcli"],
        "model-index": [{"name": name, "results": [result]}],
    }
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items()) + "---\n"


def _training(info: dict[str, Any]) -> str:
    images, freeze, entry = info["images"], info["freeze"], info["preprocessing"]
    depth = {0: "nothing", freeze["of"]: "everything before the softmax head"}
    frozen = depth.get(freeze["layer"], f"layers 1 to {freeze['layer']} of {freeze['of']} ({freeze['name']})")
    rows = [
        ("Network", info["backbone"]),
        ("Started from", STARTS.get(info["settings"]["weights"], "weights from a file")),
        ("Frozen", frozen),
        ("Input", f"{entry['width']} x {entry['height']} pixels, {entry['channels']} channels, {entry['fit']}"),
        *((f"Images, {split}", f"{images[split]:,}") for split in ("train", "validation", "test")),
        ("Temperature", f"{info['temperature']:.4g}"),
    ]
    lines = ["| | |", "|---|---|", *(f"| {_text(key)} | {_text(value)} |" for key, value in rows)]
    return "## What it was made of\n\n" + "\n".join(lines) + "\n"


def _figures(info: dict[str, Any], split: str) -> str:
    """Accuracy and the classes on one split."""
    found = info[split]
    low, high = found["interval"]
    how = ", out of fold: each was judged by heads that had not seen it" if found.get("method") == "5-fold" else ""
    lines = [
        f"## {split.capitalize()}: {found['images']:,} images{how}\n",
        f"Accuracy {_percent(found['accuracy'])} (95 % interval {_percent(low)} to {_percent(high)}), "
        f"macro F1 {found['macro_f1']:.3f}, log loss {found['loss']:.3f}, calibration error {found['ece']:.3f}.\n",
        "| class | images | precision | recall |",
        "|---|---:|---:|---:|",
    ]
    for name, row in found["per_class"].items():
        precision, recall = (_percent(row[key]) for key in ("precision", "recall"))
        lines.append(f"| {_text(name)} | {row['images']:,} | {precision} | {recall} |")
    return "\n".join(lines) + "\n"


def _usage(run: Run, name: str) -> str:
    prior = run.info["log_prior"]
    scores = f"logits / {run.temperature!r}" + ("" if prior is None else f" + torch.tensor({prior!r})")
    mode = "RGB" if run.preprocessing.channels == 3 else "L"
    return USAGE.format(source=json.dumps(f"local-dir:{name}"), mode=mode, scores=scores)

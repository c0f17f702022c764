"""The model card in Markdown, as model hubs show it: how a network was trained, how accurate it is, how to use it."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from tlcli.datasets.class_names import in_reading_order, reading_order
from tlcli.exporting.network_input import NetworkInput
from tlcli.inference.held_out import describe_method
from tlcli.runs.run import Run

MARKDOWN_CHARACTERS = re.compile(r"([\\`*_{}\[\]#|~])")
"""Characters with a meaning in Markdown."""

INITIAL_WEIGHTS = {"pretrained": "pretrained", "none": "random"}
"""The weights that training started from, by `--weights`."""

TIMM_USAGE = """```python
import timm
import torch
from PIL import Image

model = timm.create_model({source}, pretrained=True).eval()  # once uploaded: "hf-hub:YOU/NAME"
transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
image = Image.open("image.jpg").convert("{mode}")  # upright and sRGB: tlcli applies EXIF orientations and ICC profiles
with torch.inference_mode():
    logits = model(transform(image)[None])[0]
probabilities = ({scores}).softmax(0)
label = int(logits.argmax())
print(model.pretrained_cfg["label_names"][label], float(probabilities[label]))
```"""

OPENVINO_USAGE = """```python
import json
import numpy as np
import openvino
from PIL import Image, ImageOps

core = openvino.Core()
model = core.read_model({source})
classes = json.loads(model.get_rt_info(["tlcli", "classes"]).astype(str))
network = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})  # without: bf16 where it is faster
image = Image.open("image.jpg")  # in sRGB: tlcli applies ICC profiles
image = ImageOps.exif_transpose(image).convert("{mode}")
image = {resize}
pixels = np.array(image).reshape(1, {height}, {width}, {channels})
{prepare}
probabilities = network(batch)["probabilities"][0]
print(classes[probabilities.argmax()], probabilities.max())
```"""

RESIZE = {
    "crop": "ImageOps.fit(image, ({width}, {height}), Image.Resampling.{resampling}, {margin!r})",
    "pad": "ImageOps.pad(image, ({width}, {height}), Image.Resampling.{resampling}, {fill!r})",
    "squash": "image.resize(({width}, {height}), Image.Resampling.{resampling})",
}
"""Code that resizes an image, by `--fit`."""


def model_card(run: Run, name: str, openvino_input: NetworkInput | None = None) -> str:
    """Return the model card of a run.

    Args:
        run: The run that the card describes.
        name: Name of the folder that contains the card.
        openvino_input: The network's input if the folder is for OpenVINO; None if it is for timm.
    """
    info = run.info
    names = [_text(run.classes[index]) for index in reading_order(run.classes)]
    parts = [
        _front_matter(info, name, "openvino" if openvino_input else "timm"),
        f"# {_text(name)}\n",
        f"Classifies images into {len(run.classes)} classes: {', '.join(names)}.\n",
        _training(info),
        *(_metrics(info, split) for split in ("test", "validation") if info.get(split)),
        "## Use\n",
        _openvino_usage(openvino_input, name) if openvino_input else _timm_usage(run, name),
        "\nDividing the logits by the temperature"
        + (" and adding the log class frequencies" if info["log_prior"] else "")
        + (", as the network does," if openvino_input else "")
        + " calibrates the probabilities for images like those in the training data. The network predicts one of its "
        "classes for any image, including images that belong to none of them.\n",
        f"Trained with tlcli {_text(info['tlcli'])}, torch {_text(info['versions']['torch'])}, "
        f"timm {_text(info['versions']['timm'])}.\n",
    ]
    return "\n".join(parts)


def _text(value: object) -> str:
    """Escape text for Markdown and HTML, on one line."""
    printable = "".join(char if char.isprintable() or char == " " else ascii(char)[1:-1] for char in str(value))
    return MARKDOWN_CHARACTERS.sub(r"\\\1", html.escape(printable, quote=False))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _front_matter(info: dict[str, Any], name: str, library: str) -> str:
    """Return the metadata that hubs read, as JSON values, which are also YAML."""
    metrics = info.get("test") or info["validation"]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": "custom images", "type": "imagefolder"},
        "metrics": [
            {"type": "accuracy", "value": round(metrics["accuracy"], 4)},
            {"type": "f1", "value": round(metrics["macro_f1"], 4), "name": "macro F1"},
        ],
    }
    content = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", library, "transfer-learning", "tlcli"],
        "model-index": [{"name": name, "results": [result]}],
    }
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items()) + "---\n"


def _training(info: dict[str, Any]) -> str:
    images, freeze, preprocessing = info["images"], info["freeze"], info["preprocessing"]
    width, height, channels = (preprocessing[key] for key in ("width", "height", "channels"))
    depth = {0: "none", freeze["of"]: "all layers before the softmax head"}
    frozen = depth.get(freeze["layer"], f"layers 1 to {freeze['layer']} of {freeze['of']} ({freeze['name']})")
    rows = [
        ("Network", info["backbone"]),
        ("Initial weights", INITIAL_WEIGHTS.get(info["settings"]["weights"], "from a file")),
        ("Frozen", frozen),
        ("Input", f"{width} x {height} pixels, {channels} channels, {preprocessing['fit']}"),
        *((f"Images, {split}", f"{images[split]:,}") for split in ("train", "validation", "test")),
        ("Temperature", f"{info['temperature']:.4g}"),
    ]
    lines = ["| | |", "|---|---|", *(f"| {_text(key)} | {_text(value)} |" for key, value in rows)]
    return "## Training\n\n" + "\n".join(lines) + "\n"


def _metrics(info: dict[str, Any], split: str) -> str:
    """Return the section on one split: accuracy, and a table of the classes."""
    found = info[split]
    low, high = found["interval"]
    how = describe_method(found)
    lines = [
        f"## {split.capitalize()}: {found['images']:,} images{', ' * bool(how)}{how}\n",
        f"Accuracy {_percent(found['accuracy'])} (95 % interval {_percent(low)} to {_percent(high)}), "
        f"macro F1 {found['macro_f1']:.3f}, log loss {found['loss']:.3f}, calibration error {found['ece']:.3f}.\n",
        "| class | images | precision | recall |",
        "|---|---:|---:|---:|",
    ]
    for name, row in in_reading_order(found["per_class"]).items():
        precision, recall = (_percent(row[key]) for key in ("precision", "recall"))
        lines.append(f"| {_text(name)} | {row['images']:,} | {precision} | {recall} |")
    return "\n".join(lines) + "\n"


def _timm_usage(run: Run, name: str) -> str:
    prior = run.info["log_prior"]
    scores = f"logits / {run.temperature!r}" + ("" if prior is None else f" + torch.tensor({prior!r})")
    mode = "RGB" if run.preprocessing.channels == 3 else "L"
    return TIMM_USAGE.format(source=json.dumps(f"local-dir:{name}"), mode=mode, scores=scores)


def _openvino_usage(network_input: NetworkInput, name: str) -> str:
    how = network_input.preprocessing
    fill = tuple(round(255 * value) for value in how.mean)
    mode = "RGB" if how.channels == 3 else "L"
    resize = RESIZE[how.fit].format(
        width=how.width,
        height=how.height,
        resampling=how.interpolation.upper(),
        margin=round((1 - how.crop_fraction) / 2, 6),
        fill=fill if mode == "RGB" else fill[0],
    )
    prepare = "batch = pixels"
    if not network_input.takes_pixels:
        prepare = (
            f"batch = (pixels / 255 - {list(how.mean)}) / {list(how.std)}\n"
            "batch = batch.transpose(0, 3, 1, 2).astype(np.float32)"
        )
    return OPENVINO_USAGE.format(
        source=json.dumps(f"{name}/model.xml"),
        mode=mode,
        resize=resize,
        prepare=prepare,
        width=how.width,
        height=how.height,
        channels=how.channels,
    )

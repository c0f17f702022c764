"""Fixtures: exports of the trained run, and a run on gray images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from exported_runs import HOSTILE, IMAGE, ROOT, train

from tlcli.commands import export as command


class Exported(NamedTuple):
    """An export of the trained run. Not to be changed."""

    folder: Path
    """With the export, and the image of docs/export.md."""
    result: dict


@pytest.fixture(scope="session")
def export_as(shared_folder, trained):
    """Export the trained run as `export_as("onnx")`; that for torch has the preprocessing, as in docs/export.md."""
    from tlcli.settings import ExportSettings

    names = {"onnx": "street.onnx", "openvino": "street-openvino", "torch": "street.pt2", "timm": "street-timm"}

    def export(form):
        def write(folder):
            (folder / IMAGE).parent.mkdir(parents=True)
            shutil.copy(ROOT / IMAGE, folder / IMAGE)
            out, whole = folder / names[form], form == "torch"
            settings = ExportSettings(
                run=trained.run, form=form, out=out, with_preprocessing=whole, workers=1, pictures=20
            )
            (folder / "result.json").write_text(json.dumps(command.export(settings).to_json()))

        folder = shared_folder(f"export-{form}", write)
        return Exported(folder, json.loads((folder / "result.json").read_text()))

    return export


@pytest.fixture(scope="session")
def gray(photos, tmp_path_factory):
    """A run of lenet5, which takes gray images, with unusual class names and balanced classes."""
    folder = tmp_path_factory.mktemp("gray")
    for shape, name in HOSTILE.items():
        for image in sorted((photos / shape).iterdir())[: 15 if shape == "disc" else 11]:
            (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / "photos" / name)
    return train(folder / "photos", folder, balance=True, epochs=2, backbone="lenet5", weights="none", freeze="none")

"""What a run records about the runs that it continues, and whether it has forgotten what they knew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from continued_runs import CUT, continue_from, with_class

from tlcli.cli.main import run as tlcli
from tlcli.insight.units.inspected_network import load_inspected_network
from tlcli.runs.run import load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def chain(photos, tuned, folder):
    """Two runs that continue from `tuned`, one after the other, and the results of `finetune`."""
    first = continue_from(tuned, photos, folder / "first", folder / "cache", CUT, training={"epochs": 6})
    second = continue_from(folder / "first", photos, folder / "second", folder / "cache", validation_fraction=0.2)
    return first, second


def test_the_chain_of_parents_is_recorded(tuned, chain, folder):
    first, second = chain
    (parent,) = first["parents"]
    assert (parent["path"], parent["sha256"]) == (str(tuned), load_run(tuned).info["sha256"])
    assert [row["path"] for row in second["parents"]] == [str(folder / "first"), str(tuned)]
    assert second["parents"][0]["sha256"] == first["sha256"]
    assert load_run(folder / "second").info["parents"] == second["parents"]


def test_layers_and_the_report_show_the_chain(tuned, chain, folder, capsys):
    assert tlcli(["layers", str(folder / "second")]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    words = f"Continued from {folder / 'first'} (frozen up to layer 4 of 7 (blocks.3)), which continued from {tuned}"
    assert words.split("(", maxsplit=1)[0] in shown
    assert f"which continued from {tuned}" in shown
    assert tlcli(["layers", str(folder / "second"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parents"] == chain[1]["parents"]
    assert f"which continued from {tuned}" in (folder / "second" / "report.html").read_text()


def test_inspect_compares_with_the_parent(chain, folder, tuned):
    network = load_inspected_network(str(folder / "first"), device="cpu")
    assert network.initial is not None
    assert network.remark == f"Before: weights of {tuned}."
    before, after = load_run(tuned).weights(), network.initial.state_dict()
    assert all(after[name].equal(before[name]) for name in before if not name.startswith("classifier."))


def test_inspect_without_the_parent_says_why(photos, tuned, folder, tmp_path):
    shutil.copytree(tuned, tmp_path / "parent")
    continue_from(tmp_path / "parent", photos, tmp_path / "run", folder / "cache", CUT)
    shutil.rmtree(tmp_path / "parent")
    network = load_inspected_network(str(tmp_path / "run"), device="cpu")
    assert network.initial is None
    assert "cannot be shown as they were before" in network.remark


def test_forgetting_is_measured_on_the_held_out_images_of_the_parent(chain, tuned):
    first, _ = chain
    parent = load_run(tuned).info["validation"]
    assert first["forgetting"] == {
        "run": str(tuned),
        "images": parent["images"],
        "before": parent["accuracy"],
        "after": first["validation"]["accuracy"],
        "trained_on": 0,
        "missing": 0,
        "relabeled": 0,
    }


def test_forgetting_is_measured_without_the_images_of_the_parent_in_data(tuned, draw, tmp_path, capsys):
    data = tmp_path / "other"
    for number in range(24):
        draw(data / ("disc", "noise")[number % 2] / f"{number}.png", seed=number, size=(96, 80))
    command = ["finetune", data, "--backbone", tuned, "--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert tlcli([*map(str, command)]) == 0
    found = load_run(tmp_path / "run").info["forgetting"]
    rows = pq.read_table(tuned / "predictions.parquet").to_pylist()
    discs = [row for row in rows if row["split"] == "validation" and row["label"] == "disc"]
    assert (found["images"], found["missing"], found["trained_on"]) == (len(discs), 0, 0)
    assert found["before"] == sum(row["predicted"] == "disc" for row in discs) / len(discs)
    assert f"on {len(discs)} images that {tuned} held out" in " ".join(capsys.readouterr().err.split())


def test_a_corrected_label_is_no_loss(photos, tuned, tmp_path):
    """An image that DATA has in another class now is left out and counted."""
    data, rows = tmp_path / "data", pq.read_table(tuned / "predictions.parquet").to_pylist()
    held = next(Path(row["path"]) for row in rows if row["split"] == "validation" and row["label"] == "disc")
    shutil.copytree(photos, data)
    shutil.move(data / "disc" / held.name, data / "square" / f"moved-{held.name}")
    found = continue_from(tuned, data, tmp_path / "run", tmp_path / "cache", CUT)["forgetting"]
    assert found["relabeled"] == 1
    assert found["images"] == load_run(tuned).info["validation"]["images"] - 1


def test_images_that_are_gone_are_counted(photos, tuned, draw, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    continue_from(tuned, copy, tmp_path / "parent", tmp_path / "cache", CUT)
    held = load_run(tmp_path / "parent").info["validation"]["images"]
    shutil.rmtree(copy)
    data = with_class(photos, tmp_path / "data", draw)
    for path in data.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")  # other files with the same images
    found = continue_from(tmp_path / "parent", data, tmp_path / "run", tmp_path / "cache")["forgetting"]
    assert (found["images"], found["before"], found["missing"]) == (0, None, held)

"""The contract of the command line: commands, options, JSON keys, exit codes, and the imports of --help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tlcli.cli.app import app
from tlcli.cli.main import run

README = Path(__file__).parents[2] / "README.md"

NETWORK = {"--backbone", "--weights", "--freeze", "--size", "--fit", "--seed"}
HARDWARE = {"--device", "--engine", "--batch-size", "--workers"}
EVERYWHERE = {"--json", "--quiet", "--verbose"}
FILTERS = {"--include", "--exclude"}
CORRECTED = ("finetune", "cache-features", "check", "evaluate", "compare", "augment", "inspect")
READING = ("finetune", "cache-features", "check", "predict", "evaluate", "compare", "export", "augment", "inspect")
AUGMENTATION = {"--augment", "--rotate", "--mirror", "--flip-vertical", "--crop", "--noise", "--color-shift"}
OPTIONS = {
    "finetune": NETWORK
    | HARDWARE
    | {"--precision", "--out", "--group-by", "--balance", "--rename", "--validation-fraction", "--cache", "--no-cache"}
    | {"--track", "--resume", "--overwrite", "--epochs", "--learning-rate", "--weight-decay", "--patience", "--views"}
    | AUGMENTATION,
    "cache-features": NETWORK
    | HARDWARE
    | AUGMENTATION
    | {"--precision", "--cache", "--verify", "--export", "--views", "--shard", "--cluster", "--cores"},
    "check": (NETWORK - {"--freeze"})
    | HARDWARE
    | {"--precision", "--out", "--overwrite", "--group-by", "--cache", "--no-cache", "--verify"},
    "predict": HARDWARE
    | {"--out", "--top", "--probabilities", "--min-confidence", "--unknown-rate", "--resume", "--overwrite"}
    | {"--explain", "--explain-limit", "--shard", "--cluster", "--part-size", "--cores"},
    "evaluate": {"--split", "--device"},
    "compare": HARDWARE | {"--split", "--out", "--overwrite"},
    "export": {
        "--format",
        "--out",
        "--with-preprocessing",
        "--fp16",
        "--int8",
        "--data",
        "--pictures",
        "--workers",
        "--overwrite",
    },
    "augment": AUGMENTATION | {"--out", "--copies", "--group-by", "--seed", "--workers", "--resume", "--preview"},
    "inspect": {
        "--layer",
        "--units",
        "--out",
        "--size",
        "--weights",
        "--device",
        "--workers",
        "--batch-size",
        "--overwrite",
    },
    "benchmark": {"--engine", "--device", "--images", "--seconds", "--workers", "--image-column", "--label-column"},
    "serve": {"--host", "--port", "--token", "--no-token", "--workers", "--no-page"},
    "similar": (NETWORK - {"--backbone", "--freeze"})
    | HARDWARE
    | {"--in", "--top", "--out", "--overwrite", "--precision", "--cache", "--no-cache", "--label-column"},
    "layers": set(),
    "backbones": set(),
    "cache list": {"--cache"},
    "cache prune": {"--cache", "--older-than"},
}


def options_of(command: str) -> dict[str, str]:
    """Return the options of a command and their help, from Typer's command object."""
    node = typer.main.get_command(app)
    for name in command.split():
        node = node.commands[name]
    return {
        flag: parameter.help or ""
        for parameter in node.params
        for flag in [*parameter.opts, *parameter.secondary_opts]
        if flag.startswith("--")
    }


@pytest.mark.parametrize("command", OPTIONS)
def test_options_of_the_contract_exist_and_have_help(command):
    found = options_of(command)
    assert OPTIONS[command] | EVERYWHERE <= found.keys()
    assert all(found.values()), [flag for flag, text in found.items() if not text]


@pytest.mark.parametrize("command", [*READING, "similar", "benchmark"])
def test_commands_that_read_images_choose_files(command):
    assert options_of(command).keys() >= FILTERS


@pytest.mark.parametrize("command", CORRECTED)
def test_commands_that_use_labels_correct_them(command):
    assert "--corrections" in options_of(command)


@pytest.mark.parametrize("command", OPTIONS)
def test_readme_names_every_command(command):
    assert f"tlcli {command}" in README.read_text()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[*name.split(), "--help"] for name in OPTIONS]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from tlcli.cli.main import run; "
        f"assert run({arguments!r}) == 0; "
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_json_excludes_rows_on_stdout(capfd):
    assert run(["predict", "nowhere", "x.jpg", "--out", "-", "--json"]) == 2
    assert "both write" in json.loads(capfd.readouterr().out)["error"]["message"]


def test_augment_json(photos, tmp_path, capfd):
    arguments = ["augment", str(photos), "--out", str(tmp_path / "out"), "--noise", "5", "--preview"]
    assert run([*arguments, str(tmp_path / "look.png"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() >= {"out", "images", "written", "seconds", "failed", "failures", "preview", "splits"}
    assert found["images"] == 45
    begun = json.loads((tmp_path / "out" / "augment.json").read_text())
    assert begun["augmentation"]["noise"] == 5
    assert begun["augmentation"]["mirror"] is False, "single amounts alone, without a preset"


def test_layers_json(capfd):
    assert run(["layers", "lenet5", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    keys = "number name kind output_shape parameters kernel stride padding receptive_field".split()
    assert all(set(keys) <= layer.keys() for layer in found["layers"])
    assert [layer["number"] for layer in found["layers"]] == list(range(1, len(found["layers"]) + 1))


def test_backbones_json(capfd):
    assert run(["backbones", "efficientnet_lite0", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["backbones"]}
    default = rows["tf_efficientnet_lite0"]
    assert default.keys() >= {"name", "parameters", "input_size", "local"}
    assert default["local"] is True
    assert default["input_size"] == 224
    assert rows["efficientnet_lite0"]["local"] is False


def test_listings_on_stdout_are_not_cut_off(capfd):
    assert run(["layers", "torchvision/alexnet"]) == 0
    out = capfd.readouterr().out
    assert "61,100,840" in out
    assert "…" not in out


def test_layers_of_a_run_show_what_was_frozen(trained, capfd):
    assert run(["layers", str(trained.run)]) == 0
    output = capfd.readouterr()
    rows = output.out.splitlines()[2:]
    assert [row.split()[-1] for row in rows[:-1]] == ["frozen"] * 18 + ["trained"]
    assert "Frozen up to the head: 3,371,008 parameters frozen, 3,843 trained" in output.err
    assert run(["layers", str(trained.run), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["frozen"], found["trained_parameters"]) == (18, 3843)


def test_evaluate_prints_the_confusion_matrix_and_the_calibration(trained, photos, capfd):
    assert run(["evaluate", str(trained.run), str(photos)]) == 0
    output = capfd.readouterr()
    assert "Confusion  rows: true class, columns: predicted class" in output.err
    assert "Calibration  error" in output.err
    assert output.out == ""

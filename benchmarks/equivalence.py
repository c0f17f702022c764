"""Record what tlcli computes, and compare two recordings: a refactoring must not change any hash.

usage: python benchmarks/equivalence.py record FOLDER     (with the Python of the version to record)
       python benchmarks/equivalence.py reuse FOLDER      (use the runs and cache of an older version)
       python benchmarks/equivalence.py compare FOLDER FOLDER

Run it from the root of the project. Training is deterministic on the same machine with the same number of threads, so
record both versions on the same machine. FOLDER holds the runs, the cache and `recording.json`.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.ipc

DATA, NEW = "sample_data/pictures", "sample_data/to_predict"
SMALL = ["--size", "64"]
RUNS = {
    "all": [],
    "augmented-views": [*SMALL, "--augment", "light", "--views", "2"],
    "13-augmented": [*SMALL, "--freeze", "13", "--augment", "light", "--epochs", "3"],
    "auto": [*SMALL, "--freeze", "auto", "--epochs", "6"],
    "lenet5": ["--backbone", "lenet5", "--weights", "none", "--freeze", "none", "--epochs", "4"],
}
SIGNATURES = """
import json, typer
import tlcli.cli.main
from tlcli.cli.app import app

def walk(node, name):
    if hasattr(node, "commands"):
        for key, child in node.commands.items():
            yield from walk(child, f"{name} {key}".strip())
    else:
        yield name, {
            "/".join([*p.opts, *p.secondary_opts]): [
                getattr(p, "rich_help_panel", None), p.metavar, repr(p.default), p.required
            ]
            for p in node.params
        } | {"epilog": node.epilog}

print(json.dumps(dict(walk(typer.main.get_command(app), ""))))
"""


def tlcli(*arguments):
    """Run a command with --json and return its object."""
    command = [sys.executable, "-m", "tlcli", *map(str, arguments), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 3}:
        sys.exit(f"{command} exited with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def sha256(content):
    """Return the SHA-256 of bytes or of a file, in hexadecimal."""
    return hashlib.sha256(content.read_bytes() if isinstance(content, Path) else content).hexdigest()


def keys(value):
    """Return the keys of nested JSON without the values; class names and other free keys count as values."""
    if isinstance(value, dict):
        return {key: keys(value[key]) for key in sorted(value) if key not in {"per_class", "skipped"}}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return None


def onnx_outputs(model, shape):
    """Return the SHA-256 of the outputs of an ONNX model for seeded noise."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    entry = session.get_inputs()[0].name
    return [sha256(np.ascontiguousarray(values).tobytes()) for values in session.run(None, {entry: noise})]


def features(cache):
    """Hash all cached features by fingerprint, digest and view, in any order of rows; also return their count."""
    found = {}
    for part in sorted(cache.glob("*/part-*.arrow")):
        table = pyarrow.ipc.open_file(pyarrow.memory_map(str(part))).read_all()
        if "feature" not in table.column_names:  # the memo's part
            continue
        rows = zip(table["digest"].to_pylist(), table["view"].to_pylist(), table["feature"], strict=True)
        for digest, view, feature in rows:
            found[f"{part.parent.name} {digest.hex()} {view}"] = sha256(feature.to_numpy().tobytes())
    return sha256(json.dumps(found, sort_keys=True).encode()), len(found)


def hash_run(run, folder):
    """Return hashes of the contents, predictions, units and export of a run."""
    rows, units, model = folder / f"{run.name}.csv", folder / f"{run.name}-units", folder / f"{run.name}.onnx"
    info = json.loads((run / "run.json").read_text())
    found = {"weights": sha256(run / "model.safetensors")}
    predicted = tlcli("predict", run, NEW, DATA, "--top", 2, "--probabilities", "--out", rows, "--overwrite")
    inspected = tlcli("inspect", run, DATA, "--units", 2, "--out", units, "--overwrite")
    exported = tlcli("export", run, "--format", "onnx", "--out", model, "--overwrite")
    evaluated = tlcli("evaluate", run, DATA, "--split", "all")
    found |= {
        "rows": sha256(rows),
        "units.jsonl": sha256(units / "units.jsonl"),
        "evaluate": [evaluated["accuracy"], evaluated["loss"], evaluated["ece"]],
        "onnx": onnx_outputs(model, [info["preprocessing"][key] for key in ("channels", "height", "width")]),
        "validation": info["validation"],
        "keys": {
            "run.json": keys(info),
            "predict": keys(predicted),
            "inspect": keys(inspected),
            "export": keys(exported),
            "evaluate": keys(evaluated),
        },
    }
    return found


def record(folder):
    """Train, predict, inspect and export, and record the hashes."""
    folder.mkdir(parents=True)
    cache = folder / "cache"
    found = {"options": json.loads(subprocess.check_output([sys.executable, "-c", SIGNATURES])), "runs": {}, "keys": {}}
    for name, options in RUNS.items():
        print(name, file=sys.stderr)
        run = folder / name
        found["keys"][f"finetune {name}"] = keys(tlcli("finetune", DATA, "--out", run, "--cache", cache, *options))
        found["runs"][name] = hash_run(run, folder)
    others = {
        "cache-features": ["cache-features", DATA, "--freeze", "5", *SMALL, "--cache", cache],
        "check": ["check", DATA, "--cache", cache],
        "layers": ["layers", "vgg16"],
        "backbones": ["backbones", "lenet*"],
        "augment": ["augment", DATA, "--out", folder / "augmented"],
        "cache list": ["cache", "list", "--cache", cache],
    }
    for name, command in others.items():
        found["keys"][name] = keys(tlcli(*command))
    found["augmented"] = sorted(sha256(path) for path in (folder / "augmented").rglob("*.png"))
    found["features"] = features(cache)
    (folder / "recording.json").write_text(json.dumps(found, indent=1))


def reuse(folder):
    """Predict with the runs of an older version and train from its cache: expect equal results and no recomputation."""
    recorded = json.loads((folder / "recording.json").read_text())
    for name, options in RUNS.items():
        rows = folder / f"{name}-reused.csv"
        tlcli("predict", folder / name, NEW, DATA, "--top", 2, "--probabilities", "--out", rows, "--overwrite")
        same = sha256(rows) == recorded["runs"][name]["rows"]
        print(f"{name}: rows of the old run {'identical' if same else 'DIFFER'}")
        if name in {"all", "augmented-views"}:
            new = folder / f"{name}-again"
            info = tlcli("finetune", DATA, "--out", new, "--cache", folder / "cache", *options, "--overwrite")
            weights = sha256(new / "model.safetensors") == recorded["runs"][name]["weights"]
            print(
                f"{name}: {info['images']['computed']} features computed, weights", "identical" if weights else "DIFFER"
            )


def differences(old, new, place=""):
    """Yield the paths at which two recordings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key, "absent"), new.get(key, "absent"), f"{place}/{key}")
    elif old != new:
        yield f"{place}: {str(old)[:200]} became {str(new)[:200]}"


match sys.argv[1:]:
    case ["record", folder]:
        record(Path(folder))
    case ["reuse", folder]:
        reuse(Path(folder))
    case ["compare", old, new]:
        recordings = [json.loads((Path(folder) / "recording.json").read_text()) for folder in (old, new)]
        found = list(differences(*recordings))
        print("\n".join(found) or "identical")
        sys.exit(bool(found))
    case _:
        sys.exit(__doc__)

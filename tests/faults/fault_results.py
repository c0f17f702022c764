"""What commands have written, in a form in which two equal results are equal."""

from __future__ import annotations

import json

import pyarrow as pa

from tlcli.runs.run import load_run

VARYING = {"seconds", "waited", "created", "sha256", "files", "computed", "reused"}
"""Keys of run.json and metrics.jsonl in which two equal runs differ."""


def without_varying(content):
    """Remove the keys in `VARYING` from JSON content."""
    if isinstance(content, dict):
        return {name: without_varying(value) for name, value in content.items() if name not in VARYING}
    return [without_varying(value) for value in content] if isinstance(content, list) else content


def run_in(path):
    """Return the content of a run, after verifying its checksums."""
    loaded = load_run(path)
    lines = [without_varying(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    names = set(loaded.info["files"]) - {"metrics.jsonl", "report.html"}
    return without_varying(loaded.info), lines, {name: (path / name).read_bytes() for name in names}


def features_in(cache):
    """Return the features in all parts of a cache, by directory, digest and view."""
    found = {}
    for header in sorted(cache.glob("*/cache.json")):
        for path in header.parent.glob("part-*.arrow"):
            with pa.OSFile(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
            for row in table.to_pylist():
                found[header.parent.name, row["digest"], row["view"]] = bytes(str(row["feature"]), "ascii")
    return found


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Kill the commands that write files, or fail their disk, at every kind of write, sync, rename and removal.

There must be no traceback and no lost data, and the next command must end as if nothing had happened.
With `TLCLI_FAULTS=all`, all faults are tried at every operation; otherwise those that `faults_of` chooses.
"""

from __future__ import annotations

import json
import os
import re
import shutil

import pyarrow as pa
import pytest
from fault_trials import (
    BROKEN,
    DISK,
    FAULT_NAMES,
    FULL,
    KILL,
    KILLED,
    NETWORK,
    PARTS,
    QUICK,
    SOME_FAILED,
    TAIL,
    TEAR,
    TOLERATED,
    Case,
    digest_of,
    faults_of,
    leftovers,
    message_problem,
    part_of,
    replay,
    tree,
    unsafe_renames,
)

from tlcli.runs.run import load_run

EVERYTHING = os.environ.get("TLCLI_FAULTS") == "all"
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


@pytest.fixture
def cases(images, few, inbox, empty, made, timm_run, tmp_path):
    """The commands by name."""
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache"]
    tail = [*finetune, *QUICK, *TAIL]
    other = [*finetune, *NETWORK, "--balance", "--overwrite"]
    augment = ["augment", str(few), "--out", "{}/set", "--workers", "1", "--mirror"]
    cached = ["cache-features", str(images), "--cache", "{}/cache", *QUICK]
    old = run_in(made / "run")

    def predicted(form, *flags):
        return ["predict", str(made / "run"), str(inbox), "--out", f"{{}}/rows.{form}", "--workers", "1", *flags]

    def exported(run, form, out):
        return ["export", str(run), "--format", form, "--data", str(images), "--out", f"{{}}/{out}", "--overwrite"]

    exports = tmp_path / "exports"
    (exports / "hub").mkdir(parents=True)
    (exports / "model.onnx").write_text("an older export")
    (exports / "hub/config.json").write_text("an older export")

    def whole_file(folder):
        content = (folder / "model.onnx").read_bytes()
        assert content == b"an older export" or len(content) > 10_000

    def whole_folder(folder):
        # Between the two renames the old folder has a temporary name; the next command renames it back.
        path = folder / "hub" if (folder / "hub").exists() else folder / ".hub.old"
        names = sorted(file.name for file in path.iterdir())
        assert names in (["config.json"], ["README.md", "config.json", "model.safetensors"])

    overwriting = tmp_path / "rows"
    overwriting.mkdir()
    (overwriting / "rows.csv").write_text("old rows\n")

    def whole_run(folder):
        now = run_in(folder / "run")
        assert now == old or now[0]["settings"]["balance"]

    def whole_rows(folder):
        rows = (folder / "rows.csv").read_text()
        assert rows == "old rows\n" or rows.count("\n") == 6

    def run_of(folder):
        return run_in(folder / "run")

    def rows_of(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}

    def case(name, arguments, result, again=("--resume",), start=empty, **more):
        return name, Case(
            name=name, arguments=arguments, again=[*arguments, *again], start=start, result=result, **more
        )

    failed = {"code": SOME_FAILED}
    return dict(
        [
            case("cache-features", cached, lambda folder: features_in(folder / "cache"), again=()),
            case("finetune", [*finetune, *NETWORK], lambda folder: (run_of(folder), features_in(folder / "cache"))),
            case("finetune-tail", tail, run_of),
            case("finetune-overwrite", other, run_of, again=(), start=made, held=whole_run),
            case("predict-jsonl", predicted("jsonl", "--top", "2"), rows_of, **failed),
            case("predict-parquet", predicted("parquet", "--probabilities"), rows_of, **failed),
            case(
                "predict-csv-overwrite",
                predicted("csv", "--overwrite"),
                rows_of,
                again=(),
                start=overwriting,
                held=whole_rows,
                **failed,
            ),
            case("augment", augment, lambda folder: files_in(folder / "set")),
            case(
                "export-onnx",
                exported(made / "run", "onnx", "model.onnx"),
                files_in,
                again=(),
                start=exports,
                held=whole_file,
            ),
            case(
                "export-timm",
                exported(timm_run, "timm", "hub"),
                files_in,
                again=(),
                start=exports,
                held=whole_folder,
            ),
            case("cache-prune", ["cache", "prune", "--cache", "{}/cache"], files_in, again=(), start=made),
        ]
    )


CASES = [
    "cache-features",
    "finetune",
    "finetune-tail",
    "finetune-overwrite",
    "predict-jsonl",
    "predict-parquet",
    "predict-csv-overwrite",
    "augment",
    "export-onnx",
    "export-timm",
    "cache-prune",
]


# Every third case is in `make test`.
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if number % 3 else name for number, name in enumerate(CASES)],
)
def test_fault_at_any_operation(name, part, cases, trials, images, inbox):
    case = cases[name]
    inputs = digest_of(images), digest_of(inbox)
    with trials.trial(case.start) as (server, folder):
        before = tree(folder)
        complete = server.run(case.arguments, folder)
        assert complete.code == case.code, complete.output
        assert tree(folder) == replay(before, complete.trace), "the trace misses an operation"
        assert unsafe_renames(complete.trace) == []
        assert leftovers(folder) == []
        expected = case.result(folder)

    def trial(fault):
        return one_trial(trials, case, expected, *fault)

    faults = part_of(faults_of(complete.trace, everything=EVERYTHING), part)
    trials.counts.update(FAULT_NAMES[kind] for kind, _ in faults)
    trials.counts["operations enumerated"] += len(complete.trace) if part == "sample" else 0
    trials.counts["faults injected"] += len(faults)
    problems = trials.run_all(trial, faults)
    assert not problems, f"{len(problems)} of {len(faults)}:\n" + "\n".join(problems)
    assert (digest_of(images), digest_of(inbox)) == inputs, "the command changed its input"


def one_trial(trials, case, expected, kind, number):
    """Run a command with one fault, then the next command; return what is wrong, if anything."""
    with trials.trial(case.start) as (server, folder):
        outcome = server.run(case.arguments, folder, kind=kind, at=number)
        if len(outcome.trace) <= number:
            return f"{FAULT_NAMES[kind]} at {number}: there are only {len(outcome.trace)} operations"
        operation = outcome.trace[number]
        where = (
            f"{folder}: {FAULT_NAMES[kind]} at {number}, {operation.name} {operation.path.removeprefix(str(folder))}"
        )
        try:
            check_outcome(outcome, kind, folder, tolerated=bool(TOLERATED.search(operation.path)), code=case.code)
            case.held(folder)
            again = server.run(case.again, folder)
            # A command that was already finished does not list the failed images again.
            finished = re.search("finished (before|earlier)|already finished", again.output)
            assert again.code == (0 if finished else case.code), f"{again.code}: {again.output}"
            assert case.result(folder) == expected, "another result"
            assert leftovers(folder) == []
        except Exception as error:  # noqa: BLE001 - any error is reported together with its fault
            shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), dirs_exist_ok=True)
            return f"{where}: {type(error).__name__}: {error}\n{outcome.output[-1500:]}"
    return None


def check_outcome(outcome, kind, folder, *, tolerated, code):
    """Assert that a command with a fault was killed, or failed with one message, or tolerated the error."""
    if kind in {KILL, TEAR}:
        assert outcome.code == KILLED, f"ended with {outcome.code}"
        return
    assert kind in {FULL, BROKEN}
    if outcome.code == code and tolerated:
        assert "Traceback" not in outcome.output
        return
    assert outcome.code == DISK, f"ended with {outcome.code}"
    assert message_problem(outcome, folder) is None, message_problem(outcome, folder)

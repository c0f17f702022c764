"""Kill the commands that write files, or fail their disk, at every kind of write, sync, rename and removal.

There must be no traceback and no lost data, and the next command must end as if nothing had happened.
With `TLCLI_FAULTS=all`, all faults are tried at every operation; otherwise those that `faults_of` chooses.
"""

from __future__ import annotations

import os
import re
import shutil

import pytest
from fault_outcomes import TOLERATED, digest_of, leftovers, message_problem
from fault_results import features_in, files_in, run_in
from fault_traces import faults_of, replay, tree, unsafe_renames
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
    Case,
    part_of,
)

EVERYTHING = os.environ.get("TLCLI_FAULTS") == "all"


def run_of(folder):
    return run_in(folder / "run")


def rows_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def case(name, arguments, result, *, start, again=("--resume",), **more):
    return Case(name=name, arguments=arguments, again=[*arguments, *again], start=start, result=result, **more)


def training_cases(images, empty, made):
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache"]
    other = [*finetune, *NETWORK, "--balance", "--overwrite"]
    old = run_in(made / "run")

    def run_and_features(folder):
        return run_of(folder), features_in(folder / "cache")

    def whole_run(folder):
        now = run_of(folder)
        assert now == old or now[0]["settings"]["balance"]

    return [
        case("finetune", [*finetune, *NETWORK], run_and_features, start=empty),
        case("finetune-tail", [*finetune, *QUICK, *TAIL], run_of, start=empty),
        case("finetune-overwrite", other, run_of, again=(), start=made, held=whole_run),
    ]


def prediction_cases(run, inbox, empty, existing):
    existing.mkdir()
    (existing / "rows.csv").write_text("old rows\n")

    def predicted(form, *flags):
        return ["predict", str(run), str(inbox), "--out", f"{{}}/rows.{form}", "--workers", "1", *flags]

    def whole_rows(folder):
        rows = (folder / "rows.csv").read_text()
        assert rows == "old rows\n" or rows.count("\n") == 6

    failed = {"code": SOME_FAILED}
    overwriting = {"again": (), "start": existing, "held": whole_rows}
    return [
        case("predict-jsonl", predicted("jsonl", "--top", "2"), rows_of, start=empty, **failed),
        case("predict-parquet", predicted("parquet", "--probabilities"), rows_of, start=empty, **failed),
        case("predict-csv-overwrite", predicted("csv", "--overwrite"), rows_of, **overwriting, **failed),
    ]


def search_cases(run, images, inbox, empty):
    def searched(form):
        options = ["--no-cache", "--workers", "1", "--engine", "torch", "--overwrite"]
        return ["similar", str(run), str(inbox), "--in", str(images), "--out", f"{{}}/rows.{form}", *options]

    again = {"again": (), "start": empty, "code": SOME_FAILED}
    return [
        case("similar-parquet", searched("parquet"), rows_of, **again),
        case("similar-html", searched("html"), rows_of, **again),
    ]


def export_cases(run, timm_run, images, existing):
    (existing / "hub").mkdir(parents=True)
    (existing / "model.onnx").write_text("an older export")
    (existing / "hub/config.json").write_text("an older export")

    def exported(run, form, out):
        return ["export", str(run), "--format", form, "--data", str(images), "--out", f"{{}}/{out}", "--overwrite"]

    def whole_file(folder):
        content = (folder / "model.onnx").read_bytes()
        assert content == b"an older export" or len(content) > 10_000

    def whole_folder(folder):
        # Between the two renames the old folder has a temporary name; the next command renames it back.
        path = folder / "hub" if (folder / "hub").exists() else folder / ".hub.old"
        names = sorted(file.name for file in path.iterdir())
        assert names in (["config.json"], ["README.md", "config.json", "model.safetensors"])

    onnx, timm = exported(run, "onnx", "model.onnx"), exported(timm_run, "timm", "hub")
    return [
        case("export-onnx", onnx, files_in, again=(), start=existing, held=whole_file),
        case("export-timm", timm, files_in, again=(), start=existing, held=whole_folder),
    ]


@pytest.fixture
def cases(images, few, inbox, empty, made, timm_run, tmp_path):
    """The commands by name."""
    cached = ["cache-features", str(images), "--cache", "{}/cache", *QUICK]
    augment = ["augment", str(few), "--out", "{}/set", "--workers", "1", "--mirror"]
    prune = ["cache", "prune", "--cache", "{}/cache"]
    found = [
        case("cache-features", cached, lambda folder: features_in(folder / "cache"), again=(), start=empty),
        *training_cases(images, empty, made),
        *prediction_cases(made / "run", inbox, empty, tmp_path / "rows"),
        *search_cases(made / "run", images, inbox, empty),
        case("augment", augment, lambda folder: files_in(folder / "set"), start=empty),
        *export_cases(made / "run", timm_run, images, tmp_path / "exports"),
        case("cache-prune", prune, files_in, again=(), start=made),
    ]
    return {case.name: case for case in found}


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
    "similar-parquet",
    "similar-html",
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

"""Every write, sync, rename and removal of the commands that keep something, with a kill, a full disk or a broken one
at it: no traceback, nothing lost that was there, and the next command ends as if nothing had happened.

`TLCLI_FAULTS=all` tries both errors at every operation; otherwise they take turns.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter

import pyarrow as pa
import pytest
from fault_trials import (
    BROKEN,
    DISK,
    FULL,
    KILL,
    KILLED,
    NAMES,
    NETWORK,
    QUICK,
    SOME_FAILED,
    SPARED,
    TAIL,
    TEAR,
    Case,
    digest_of,
    faults_of,
    litter,
    one_message,
    replay,
    tree,
    unsafe_renames,
)

from tlcli.runs.run import load_run

EVERYTHING = os.environ.get("TLCLI_FAULTS") == "all"
CHANGING = {"seconds", "waited", "created", "sha256", "files", "computed", "reused"}
"""What a run says that two equal runs differ in."""


def steady(content):
    """JSON without what depends on the clock."""
    if isinstance(content, dict):
        return {name: steady(value) for name, value in content.items() if name not in CHANGING}
    return [steady(value) for value in content] if isinstance(content, list) else content


def run_in(path):
    """What a run is, after its checksums were verified."""
    loaded = load_run(path)
    lines = [steady(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    names = set(loaded.info["files"]) - {"metrics.jsonl", "report.html"}
    return steady(loaded.info), lines, {name: (path / name).read_bytes() for name in names}


def features_in(cache):
    """Features by cache, digest and view, from every part; each part's name is its checksum."""
    found = {}
    for header in sorted(cache.glob("*/cache.json")):
        for path in header.parent.glob("part-*.arrow"):
            with pa.OSFile(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
            for row in table.to_pylist():
                found[header.parent.name, row["digest"], row["view"]] = bytes(str(row["feature"]), "ascii")
    return found


def data_set_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cases(images, few, inbox, empty, made, known_to_timm, tmp_path):
    """The commands, by name."""
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
    (exports / "hub/config.json").write_text("an older one")

    def whole_file(folder):
        content = (folder / "model.onnx").read_bytes()
        assert content == b"an older export" or len(content) > 10_000

    def whole_folder(folder):
        # Between two renames it stands beside its name, and gets it back from the next command.
        there = folder / "hub" if (folder / "hub").exists() else folder / ".hub.old"
        names = sorted(path.name for path in there.iterdir())
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
            case("augment", augment, lambda folder: data_set_in(folder / "set")),
            case(
                "export-onnx",
                exported(made / "run", "onnx", "model.onnx"),
                data_set_in,
                again=(),
                start=exports,
                held=whole_file,
            ),
            case(
                "export-timm",
                exported(known_to_timm, "timm", "hub"),
                data_set_in,
                again=(),
                start=exports,
                held=whole_folder,
            ),
            case("cache-prune", ["cache", "prune", "--cache", "{}/cache"], data_set_in, again=(), start=made),
        ]
    )


NAMED = [
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


@pytest.mark.parametrize("name", NAMED)
def test_a_fault_at_any_operation(name, cases, laboratory, images, inbox, tally, record_property):
    case = cases[name]
    untouched = digest_of(images), digest_of(inbox)
    with laboratory.bench(case.start) as (server, folder):
        before = tree(folder)
        whole = server.run(case.arguments, folder)
        assert whole.code == case.code, whole.output
        assert tree(folder) == replay(before, whole.trace), "an operation was missed"
        assert unsafe_renames(whole.trace) == []
        assert litter(folder) == []
        expected = case.result(folder)

    def trial(todo):
        return one_trial(laboratory, case, expected, *todo)

    todo = faults_of(whole.trace, everything=EVERYTHING)
    problems = laboratory.each(trial, todo)
    done = Counter(NAMES[kind] for kind, _ in todo)
    tally.update({"operations enumerated": len(whole.trace), "faults injected": len(todo)} | done)
    record_property("operations", len(whole.trace))
    record_property("faults", len(todo))
    assert not problems, f"{len(problems)} of {len(todo)}:\n" + "\n".join(problems)
    assert (digest_of(images), digest_of(inbox)) == untouched


def one_trial(laboratory, case, expected, kind, number):
    """A command with one fault, and the next command: what was wrong, if anything."""
    with laboratory.bench(case.start) as (server, folder):
        ended = server.run(case.arguments, folder, kind=kind, at=number)
        if len(ended.trace) <= number:
            return f"{NAMES[kind]} at {number}: there are only {len(ended.trace)} operations"
        operation = ended.trace[number]
        where = f"{folder}: {NAMES[kind]} at {number}, {operation.name} {operation.path.removeprefix(str(folder))}"
        try:
            check_end(ended, kind, folder, spared=bool(SPARED.search(operation.path)), code=case.code)
            case.held(folder)
            again = server.run(case.again, folder)
            finished = "finished before" in again.output  # and failures were listed then
            assert again.code == (0 if finished else case.code), f"{again.code}: {again.output}"
            assert case.result(folder) == expected, "another result"
            assert litter(folder) == []
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the fault
            shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), dirs_exist_ok=True)
            return f"{where}: {type(error).__name__}: {error}\n{ended.output[-1500:]}"
    return None


def check_end(ended, kind, folder, *, spared, code):
    """That a command with a fault ended as it may."""
    if kind in {KILL, TEAR}:
        assert ended.code == KILLED, f"ended with {ended.code}"
        return
    assert kind in {FULL, BROKEN}
    if ended.code == code and spared:
        assert "Traceback" not in ended.output
        return
    assert ended.code == DISK, f"ended with {ended.code}"
    assert one_message(ended, folder) is None, one_message(ended, folder)

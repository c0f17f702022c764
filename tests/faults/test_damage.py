"""Flip a bit in each region of each file that a command keeps, or truncate it.

The damage must be noticed and the file named: its content is computed again (caches, journals, checkpoints) or refused
with exit code 4 (runs). It never leads to another result.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fault_outcomes import digest_of
from fault_trials import DONE, KILL, NETWORK, PARTS, QUICK, SOME_FAILED, TAIL, Operation, part_of
from test_crashes import features_in, run_in

REGIONS = 6
"""Number of positions in a file, from its first to its last byte, at which a bit is flipped."""
REFUSED = 4


def damages(path: Path) -> list[tuple[str, bytes]]:
    """Return damaged versions of a file: truncated, empty, with a flipped bit in each region, with a byte appended."""
    whole = path.read_bytes()
    found = [("cut to half", whole[: len(whole) // 2]), ("two bytes short", whole[:-2]), ("empty", b"")]
    for region in range(REGIONS):
        offset = region * (len(whole) - 1) // (REGIONS - 1)
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << region
        found.append((f"flipped at {offset:,} of {len(whole):,}", bytes(flipped)))
    return [*found, ("longer", whole + b"\0")]


def damage_each(trials, start, names, part, trial):
    """Run `trial(server, folder, name, what)` with each damaged version of each file."""
    damaged_files = [(name, what, content) for name in names for what, content in damages(start / name)]
    damaged_files = part_of(damaged_files, part)
    trials.counts["files damaged"] += len(damaged_files)

    def one(damaged):
        name, what, content = damaged
        with trials.trial(start) as (server, folder):
            (folder / name).write_bytes(content)
            try:
                trial(server, folder, name, what)
            except AssertionError as error:
                return f"{folder}: {name}, {what}: {error}"
        return None

    problems = trials.run_all(one, damaged_files)
    assert not problems, f"{len(problems)} of {len(damaged_files)}:\n" + "\n".join(problems)


def assert_refused(outcome, path):
    """Assert that a command failed because of the file `path`, with one message."""
    assert outcome.code == REFUSED, f"{outcome.code}: {outcome.output}"
    assert str(path) in outcome.output, outcome.output
    assert outcome.output.count("artifact: ") == 1
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("part", PARTS)
def test_damaged_run_is_refused_by_every_command_that_reads_it(trials, made, images, inbox, part):
    names = [f"run/{path.name}" for path in sorted((made / "run").iterdir())]
    assert len(names) == 9
    commands = [
        ["predict", "{}/run", str(inbox), "--workers", "1"],
        ["layers", "{}/run"],
        ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--resume"],
    ]

    def trial(server, folder, name, _):
        for command in commands:
            before = digest_of(folder)
            assert_refused(server.run(command, folder), folder / name)
            assert digest_of(folder) == before, "a file was changed"

    damage_each(trials, made, names, part, trial)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_cache_is_named_and_computed_again(trials, made, images, part):
    """Parts, memo, cache.json, the ONNX engine, the overview: the run is the same as with an intact cache."""
    files = [path for path in sorted((made / "cache").rglob("*")) if path.is_file() and path.name != ".lock"]
    names = [str(path.relative_to(made)) for path in files]
    suffixes = Counter(path.suffix for path in files)
    assert set(suffixes) == {".arrow", ".json", ".onnx", ".safetensors"}
    assert suffixes[".arrow"] >= 2, "parts of the features and of the memo"
    command = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--overwrite"]
    expected = run_in(made / "run"), features_in(made / "cache")

    def trial(server, folder, name, what):
        outcome = server.run(command, folder)
        if outcome.code == REFUSED:  # the bit was in the format number
            assert_refused(outcome, (folder / name).parent)
            assert "format" in outcome.output
            return
        assert outcome.code == DONE, outcome.output
        assert str(folder / name) in outcome.output, f"not named: {outcome.output}"
        assert (run_in(folder / "run"), features_in(folder / "cache")) == expected
        if what == "two bytes short":
            again = server.run(command, folder)
            assert "damaged" not in again.output, f"not repaired: {again.output}"

    damage_each(trials, made, names, part, trial)


def nth(trace: list[Operation], name: str, ending: str, number: int) -> int:
    """Return the index in a trace of the operation `number` of this name on a path with this ending."""
    return [at for at, operation in enumerate(trace) if operation.name == name and operation.path.endswith(ending)][
        number
    ]


@pytest.fixture(scope="module")
def interrupted(trials, images, inbox, made, empty, tmp_path_factory):
    """Files of killed commands (a tail with two checkpoints, a journal), the commands, and their complete results."""
    folder = tmp_path_factory.mktemp("interrupted") / "folder"
    shutil.copytree(empty, folder)
    tail = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *QUICK, *TAIL]
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    augment = ["augment", str(images), "--out", "{}/set", "--workers", "1", "--mirror"]
    server = trials.servers[0]
    complete = server.run(tail, folder), server.run(predict, folder)
    expected = run_in(folder / "run"), (folder / "rows.csv").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    killed = (
        server.run(tail, folder, kind=KILL, at=nth(complete[0].trace, "unlink", ".safetensors", 0)),
        server.run(predict, folder, kind=KILL, at=nth(complete[1].trace, "unlink", ".partial", 0)),
        server.run(augment, folder, kind=KILL, at=30),
    )
    assert [outcome.code for outcome in killed] == [-9, -9, -9]
    (folder / "rows.csv").unlink()
    return folder, (tail, predict, augment), expected


@pytest.mark.parametrize("part", PARTS)
def test_damaged_checkpoint_is_skipped_and_damaged_origin_is_refused(trials, interrupted, part):
    start, (tail, _, _), (run, _) = interrupted
    names = sorted(str(path.relative_to(start)) for path in (start / "run" / "checkpoint").iterdir())
    assert len(names) >= 3

    def trial(server, folder, name, _):
        outcome = server.run([*tail, "--resume"], folder)
        if name.endswith("origin.json"):
            assert_refused(outcome, folder / name)
            return
        assert outcome.code == DONE, outcome.output
        if name == names[-2]:  # the newest; older ones are not read
            assert str(folder / name) in outcome.output, outcome.output
        assert run_in(folder / "run") == run

    damage_each(trials, start, names, part, trial)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_journal_never_changes_a_row(trials, interrupted, part):
    start, (_, predict, _), (_, rows) = interrupted

    def trial(server, folder, name, _):
        outcome = server.run([*predict, "--resume"], folder)
        if outcome.code == REFUSED:
            assert_refused(outcome, folder / name)
            return
        assert outcome.code == SOME_FAILED, outcome.output
        assert (folder / "rows.csv").read_bytes() == rows

    damage_each(trials, start, [".rows.csv.partial"], part, trial)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_augment_json_is_refused(trials, interrupted, part):
    start, (_, _, augment), _ = interrupted

    def trial(server, folder, name, _):
        assert_refused(server.run([*augment, "--resume"], folder), folder / name)

    damage_each(trials, start, ["set/augment.json"], part, trial)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("run/run.json", ["predict", "{}/run", "INBOX"]),
        ("cache/HASH/cache.json", ["cache-features", "IMAGES", "--cache", "{}/cache", *NETWORK]),
    ],
)
def test_unknown_format_is_refused_and_named(trials, made, images, inbox, name, command):
    header = next(made.glob("cache/*/cache.json"))
    name = name.replace("HASH", header.parent.name)
    command = [part.replace("INBOX", str(inbox)).replace("IMAGES", str(images)) for part in command]
    with trials.trial(made) as (server, folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"format": 999}))
        outcome = server.run(command, folder)
        assert_refused(outcome, (folder / name).parent)
        assert "format 999" in outcome.output


@pytest.mark.parametrize("changed", ["--top", "--min-confidence", "image", "list"])
def test_resume_refuses_changed_inputs_and_options(trials, empty, inbox, made, tmp_path, changed):
    images = tmp_path / "images"
    shutil.copytree(inbox, images)
    predict = ["predict", str(made / "run"), str(images), "--out", "{}/rows.csv", "--workers", "1"]
    with trials.trial(empty) as (server, folder):
        complete = server.run(predict, folder)
        (folder / "rows.csv").unlink()
        assert server.run(predict, folder, kind=KILL, at=nth(complete.trace, "write", ".partial", 1)).code == -9
        before = (folder / ".rows.csv.partial").read_bytes()
        options = []
        if changed == "image":
            shutil.copy(inbox / "1.png", images / "0.png")
        elif changed == "list":
            (images / "4.png").unlink()
        else:
            options = [changed, "2" if changed == "--top" else "0.9"]
        assert_refused(server.run([*predict, *options, "--resume"], folder), folder / ".rows.csv.partial")
        assert (folder / ".rows.csv.partial").read_bytes() == before

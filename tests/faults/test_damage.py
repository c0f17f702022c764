"""Every region of every file that a command keeps, flipped or cut off: it is noticed and named, and what it held is
made again (caches, journals, checkpoints) or refused with exit 4 (runs). Never another result.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fault_trials import DONE, KILL, NETWORK, QUICK, SOME_FAILED, TAIL, Operation, digest_of
from test_crashes import features_in, run_in

REGIONS = 6
"""Places in a file at which a bit is flipped, from its first to its last byte."""
REFUSED = 4


def damages(path: Path) -> list[tuple[str, bytes]]:
    """What may become of a file: a bit flipped in each region, an end cut off, nothing left, something added."""
    whole = path.read_bytes()
    found = [("cut to half", whole[: len(whole) // 2]), ("short", whole[:-2]), ("empty", b"")]
    for region in range(REGIONS):
        offset = region * (len(whole) - 1) // (REGIONS - 1)
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << region
        found.append((f"flipped at {offset:,} of {len(whole):,}", bytes(flipped)))
    return [*found, ("longer", whole + b"\0")]


def each_damage(laboratory, start, names, tally, trial):
    """Do `trial(server, folder, name)` with each damage of each file, and give what was wrong."""
    todo = [(name, what, content) for name in names for what, content in damages(start / name)]
    tally["artifacts damaged"] += len(todo)

    def one(damaged):
        name, what, content = damaged
        with laboratory.bench(start) as (server, folder):
            (folder / name).write_bytes(content)
            try:
                trial(server, folder, name, what)
            except AssertionError as error:
                return f"{folder}: {name}, {what}: {error}"
        return None

    problems = laboratory.each(one, todo)
    assert not problems, f"{len(problems)} of {len(todo)}:\n" + "\n".join(problems)


def refused(ended, path):
    """That a command was refused because of `path`, in one message."""
    assert ended.code == REFUSED, f"{ended.code}: {ended.output}"
    assert str(path) in ended.output, ended.output
    assert ended.output.count("artifact: ") == 1
    assert "Traceback" not in ended.output


def test_a_damaged_run_is_refused_by_every_command_that_reads_it(laboratory, made, images, inbox, tally):
    names = [f"run/{path.name}" for path in sorted((made / "run").iterdir())]
    assert len(names) == 8
    commands = [
        ["predict", "{}/run", str(inbox), "--workers", "1"],
        ["layers", "{}/run"],
        ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--resume"],
    ]

    def trial(server, folder, name, _):
        for command in commands:
            before = digest_of(folder)
            refused(server.run(command, folder), folder / name)
            assert digest_of(folder) == before, "something was changed"

    each_damage(laboratory, made, names, tally, trial)


def test_a_damaged_cache_is_named_and_made_again(laboratory, made, images, tally):
    """Parts, memo, cache.json, the exported engine, the overview: the run is the same as with a whole cache."""
    files = [path for path in sorted((made / "cache").rglob("*")) if path.is_file() and path.name != ".lock"]
    names = [str(path.relative_to(made)) for path in files]
    counts = Counter(path.suffix for path in files)
    assert set(counts) == {".arrow", ".json", ".onnx", ".safetensors"}
    assert counts[".arrow"] >= 2, "parts of features, and the memo's"
    command = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--overwrite"]
    expected = run_in(made / "run"), features_in(made / "cache")

    def trial(server, folder, name, what):
        ended = server.run(command, folder)
        if ended.code == REFUSED:  # a digit of its format was flipped
            refused(ended, (folder / name).parent)
            assert "format" in ended.output
            return
        assert ended.code == DONE, ended.output
        assert str(folder / name) in ended.output, f"not named: {ended.output}"
        assert (run_in(folder / "run"), features_in(folder / "cache")) == expected
        if what == "short":
            again = server.run(command, folder)
            assert "damaged" not in again.output, f"not mended: {again.output}"

    each_damage(laboratory, made, names, tally, trial)


def nth(trace: list[Operation], name: str, ending: str, number: int) -> int:
    """The place in a trace of an operation on a path."""
    return [place for place, one in enumerate(trace) if one.name == name and one.path.endswith(ending)][number]


@pytest.fixture(scope="module")
def begun(laboratory, images, inbox, made, empty, tmp_path_factory):
    """What killed commands left: a tail with two checkpoints, and a journal; and the results of uninterrupted ones."""
    folder = tmp_path_factory.mktemp("begun") / "folder"
    shutil.copytree(empty, folder)
    tail = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *QUICK, *TAIL]
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    augment = ["augment", str(images), "--out", "{}/set", "--workers", "1", "--mirror"]
    server = laboratory.servers[0]
    whole = server.run(tail, folder), server.run(predict, folder)
    expected = run_in(folder / "run"), (folder / "rows.csv").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    killed = (
        server.run(tail, folder, kind=KILL, at=nth(whole[0].trace, "unlink", ".safetensors", 0)),
        server.run(predict, folder, kind=KILL, at=nth(whole[1].trace, "unlink", ".partial", 0)),
        server.run(augment, folder, kind=KILL, at=30),
    )
    assert [ended.code for ended in killed] == [-9, -9, -9]
    (folder / "rows.csv").unlink()
    return folder, (tail, predict, augment), expected


def test_a_damaged_checkpoint_costs_steps_and_a_damaged_origin_is_refused(laboratory, begun, tally):
    start, (tail, _, _), (run, _) = begun
    names = sorted(str(path.relative_to(start)) for path in (start / "run" / "checkpoint").iterdir())
    assert len(names) >= 3

    def trial(server, folder, name, _):
        ended = server.run([*tail, "--resume"], folder)
        if name.endswith("origin.json"):
            refused(ended, folder / name)
            return
        assert ended.code == DONE, ended.output
        if name == names[-2]:  # the newest; older ones are not looked at
            assert str(folder / name) in ended.output, ended.output
        assert run_in(folder / "run") == run

    each_damage(laboratory, start, names, tally, trial)


def test_a_damaged_journal_never_gives_another_row(laboratory, begun, tally):
    start, (_, predict, _), (_, rows) = begun

    def trial(server, folder, name, _):
        ended = server.run([*predict, "--resume"], folder)
        if ended.code == REFUSED:
            refused(ended, folder / name)
            return
        assert ended.code == SOME_FAILED, ended.output
        assert (folder / "rows.csv").read_bytes() == rows

    each_damage(laboratory, start, [".rows.csv.partial"], tally, trial)


def test_a_damaged_augment_json_is_refused(laboratory, begun, tally):
    start, (_, _, augment), _ = begun

    def trial(server, folder, name, _):
        refused(server.run([*augment, "--resume"], folder), folder / name)

    each_damage(laboratory, start, ["set/augment.json"], tally, trial)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("run/run.json", ["predict", "{}/run", "INBOX"]),
        ("cache/HASH/cache.json", ["cache-features", "IMAGES", "--cache", "{}/cache", *NETWORK]),
    ],
)
def test_another_format_is_refused_by_name(laboratory, made, images, inbox, name, command):
    header = next(made.glob("cache/*/cache.json"))
    name = name.replace("HASH", header.parent.name)
    command = [part.replace("INBOX", str(inbox)).replace("IMAGES", str(images)) for part in command]
    with laboratory.bench(made) as (server, folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"format": 999}))
        ended = server.run(command, folder)
        refused(ended, (folder / name).parent)
        assert "format 999" in ended.output


@pytest.mark.parametrize("changed", ["--top", "--min-confidence", "image", "list"])
def test_changed_inputs_and_options_are_refused(laboratory, empty, inbox, made, tmp_path, changed):
    mine = tmp_path / "mine"
    shutil.copytree(inbox, mine)
    predict = ["predict", str(made / "run"), str(mine), "--out", "{}/rows.csv", "--workers", "1"]
    with laboratory.bench(empty) as (server, folder):
        whole = server.run(predict, folder)
        (folder / "rows.csv").unlink()
        assert server.run(predict, folder, kind=KILL, at=nth(whole.trace, "write", ".partial", 1)).code == -9
        before = (folder / ".rows.csv.partial").read_bytes()
        more = []
        if changed == "image":
            shutil.copy(inbox / "1.png", mine / "0.png")
        elif changed == "list":
            (mine / "4.png").unlink()
        else:
            more = [changed, "2" if changed == "--top" else "0.9"]
        refused(server.run([*predict, *more, "--resume"], folder), folder / ".rows.csv.partial")
        assert (folder / ".rows.csv.partial").read_bytes() == before

"""Test the fault-injection harness: it detects missed operations and renames that a power cut could undo."""

from __future__ import annotations

from fault_traces import faults_of, replay, unsafe_renames
from fault_trials import BROKEN, FULL, KILL, TEAR, Operation

WRITTEN = [
    Operation("create", 0, "/a/.x.tmp", ""),
    Operation("write", 10, "/a/.x.tmp", ""),
    Operation("sync", 0, "/a/.x.tmp", ""),
    Operation("rename", 0, "/a/.x.tmp", "/a/x"),
    Operation("sync", 0, "/a", ""),
]


def test_replaying_a_trace_gives_the_resulting_tree():
    assert replay({"/a": None, "/a/x": 3}, WRITTEN) == {"/a": None, "/a/x": 10}
    moved = [*WRITTEN, Operation("rename", 0, "/a", "/b"), Operation("unlink", 0, "/b/x", "")]
    assert replay({"/a": None}, moved) == {"/b": None}
    assert replay({"/a": None}, WRITTEN[:1] + WRITTEN[2:]) != {"/a": None, "/a/x": 10}, "a write was missed"


def test_unsafe_renames_are_found():
    assert unsafe_renames(WRITTEN) == []
    (problem,) = unsafe_renames([one for one in WRITTEN if one != WRITTEN[2]])
    assert "before it is synced" in problem
    (problem,) = unsafe_renames(WRITTEN[:-1])
    assert "/a is not synced" in problem
    late = [*WRITTEN[:3], Operation("write", 1, "/a/.x.tmp", ""), *WRITTEN[3:]]
    assert len(unsafe_renames(late)) == 1


def kinds_at(trials, number):
    return [kind for kind, at in trials if at == number]


def test_with_everything_each_operation_is_killed_and_fails_twice_and_every_write_is_torn():
    found = faults_of(WRITTEN, everything=True)
    assert [kinds_at(found, number) for number in range(5)] == [
        [KILL, FULL, BROKEN],
        [KILL, TEAR, FULL, BROKEN],
        [KILL, FULL, BROKEN],
        [KILL, FULL, BROKEN],
        [KILL, FULL, BROKEN],
    ]


def test_each_operation_fails_and_each_state_on_disk_is_tried():
    found = faults_of(WRITTEN, everything=False)
    assert [kinds_at(found, number) for number in range(5)] == [
        [KILL, BROKEN],
        [KILL, TEAR, FULL],
        [KILL, BROKEN],
        [FULL],  # nothing changed since the sync began
        [KILL, BROKEN],
    ]


def test_later_files_of_a_folder_get_one_kill_and_one_error_in_turn():
    many = [
        Operation(name, size, path.replace("x", f"x{number}"), other.replace("x", f"x{number}"))
        for number in range(30)
        for name, size, path, other in WRITTEN
    ]
    found = faults_of(many, everything=False)
    assert [one for one in found if one[1] < 5] == faults_of(WRITTEN, everything=False)
    assert len(found) == 10 + 29 * 2
    later = {(kind, number % 5) for kind, number in found if number >= 5}
    steps = {(KILL, 1), (TEAR, 1), (KILL, 2), (KILL, 4)}
    assert later == steps | {(kind, step) for kind in (FULL, BROKEN) for step in range(5)}
    elsewhere = [operation._replace(path=operation.path.replace("/a", "/b")) for operation in WRITTEN]
    assert len(faults_of([*WRITTEN, *elsewhere], everything=False)) == 2 * 10 - 1  # the second starts after a sync

"""Test the fault-injection harness: it detects missed operations and renames that a power cut could undo."""

from __future__ import annotations

from fault_trials import BROKEN, FULL, KILL, TEAR, Operation, faults_of, replay, unsafe_renames

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


def test_every_operation_is_killed_and_fails_and_every_write_is_torn():
    for everything in (False, True):
        found = faults_of(WRITTEN, everything=everything)
        assert {number for kind, number in found if kind == KILL} == set(range(5))
        assert [number for kind, number in found if kind == TEAR] == [1]
        assert {number for kind, number in found if kind in {FULL, BROKEN}} == set(range(5))
        assert len(found) == (16 if everything else 11)

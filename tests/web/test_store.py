"""Labels of a session: the table is right after every action, and every action can be undone."""

from __future__ import annotations

import csv

import pytest

from tlcli.datasets.label_table import GivenLabel, LabelTable
from tlcli.errors import UsageError
from tlcli.web.label.store import LabelStore

PATHS = ["photos/a.jpg", "photos/b.jpg", "photos/ä, b.jpg", "/elsewhere/c.jpg"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def open_store(folder, classes=("car", "bus")):
    return LabelStore(LabelTable(folder / "labels.csv"), PATHS, classes)


def give(store, at="2026-01-01T00:00:00Z", **labels):
    store.label({int(image[1:]): given(int(image[1:]), label, at) for image, label in labels.items()})


def given(image, label, at):
    return GivenLabel(path=PATHS[image], label=label, source="random", at=at, proposed="car", confidence=0.75)


def table(folder):
    with (folder / "labels.csv").open(encoding="utf8", newline="") as file:
        return [(row["path"], row["label"]) for row in csv.DictReader(file)]


def test_labels_are_in_the_table_with_what_was_proposed(folder):
    give(open_store(folder), i0="car", i2=None, i3="bus")
    assert table(folder) == [("photos/a.jpg", "car"), ("photos/ä, b.jpg", ""), ("/elsewhere/c.jpg", "bus")]
    assert (folder / "labels.csv").read_text().splitlines()[1] == (
        "photos/a.jpg,car,random,2026-01-01T00:00:00Z,car,0.7500"
    )


def test_a_new_label_replaces_the_old_one(folder):
    store = open_store(folder)
    give(store, i0="car", i1="car")
    give(store, i0="bus")
    assert sorted(table(folder)) == [("photos/a.jpg", "bus"), ("photos/b.jpg", "car")]
    assert store.counts() == {"car": 1, "bus": 1}


def test_all_actions_are_undone_one_by_one_to_an_empty_table(folder):
    store = open_store(folder)
    states = []

    def keep():
        states.append((sorted(table(folder)) if (folder / "labels.csv").exists() else [], list(store.classes)))

    keep()
    for action in (
        lambda: give(store, i0="car", i1="bus"),
        lambda: give(store, i0="bus", i2="tram"),
        lambda: store.rename("bus", "coach"),
        lambda: store.add("bicycle"),
        lambda: store.merge("coach", "car"),
        lambda: store.label({0: None}),
    ):
        action()
        keep()
    while store.can_undo:
        states.pop()
        store.undo()
        assert (sorted(table(folder)), store.classes) == states[-1]
    assert table(folder) == []


def test_a_session_goes_on_where_another_stopped_and_undoes_its_actions(folder):
    first = open_store(folder)
    give(first, i0="car", i1="bus")
    give(first, at="2026-01-01T00:00:01Z", i3="tram")
    again = open_store(folder, classes=())
    assert again.classes == ["car", "bus", "tram"]
    assert {image: label.label for image, label in again.given().items()} == {0: "car", 1: "bus", 3: "tram"}
    assert again.undo().images == [3]
    assert sorted(again.undo().images) == [0, 1]
    assert not again.can_undo
    assert table(folder) == []


def test_labels_of_images_that_are_not_shown_are_kept(folder):
    give(open_store(folder), i0="car")
    other = LabelStore(LabelTable(folder / "labels.csv"), ["new.jpg"], ["car"])
    assert other.given() == {}
    other.label({0: GivenLabel(path="new.jpg", label="car", source="random", at="x")})
    other.rename("car", "auto")
    assert table(folder) == [("photos/a.jpg", "auto"), ("new.jpg", "auto")]


def test_a_renamed_proposal_still_counts_as_right(folder):
    store = open_store(folder)
    give(store, i0="car")
    store.rename("car", "auto")
    assert store.given()[0].proposed == store.given()[0].label == "auto"


def test_what_cannot_be_written_changes_nothing(folder, monkeypatch):
    store = open_store(folder)
    give(store, i0="car")
    before = (folder / "labels.csv").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tlcli.storage.appended_table.os.fsync", fail)
        for action in (
            lambda: give(store, i1="bus"),
            lambda: give(store, i0="bus"),
            lambda: store.rename("car", "auto"),
            store.undo,
        ):
            with pytest.raises(OSError, match="No space"):
                action()
            assert store.counts() == {"car": 1, "bus": 0}
    give(store, i1="bus")
    assert (folder / "labels.csv").read_bytes().startswith(before)
    assert sorted(table(folder)) == [("photos/a.jpg", "car"), ("photos/b.jpg", "bus")]


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.add("car"),
        lambda store: store.add("  "),
        lambda store: store.add("a\nb"),
        lambda store: store.add("x" * 201),
        lambda store: store.rename("car", "bus"),
        lambda store: store.rename("tram", "x"),
        lambda store: store.merge("car", "car"),
        lambda store: store.merge("car", "tram"),
    ],
)
def test_impossible_classes_are_refused(folder, action):
    store = open_store(folder)
    with pytest.raises(UsageError):
        action(store)
    assert store.classes == ["car", "bus"]


def open_again(folder, classes=()):
    return LabelStore(LabelTable(folder / "labels.csv"), PATHS, classes)


def state(folder, store):
    found = sorted(table(folder)) if (folder / "labels.csv").exists() else []
    return found, list(store.classes), sorted(store.names.items())


def act_and_keep_states(folder, store):
    """Do all kinds of actions. Return the states before each of them, and after the last."""
    states = [state(folder, store)]
    for action in (
        lambda: store.add("van"),
        lambda: give(store, i0="car", i1="bus"),
        lambda: give(store, at="2026-01-01T00:00:01Z", i0="bus", i2="tram"),
        lambda: store.rename("bus", "coach"),
        lambda: store.rename("coach", "bus"),
        lambda: store.rename("bus", "omnibus"),
        lambda: store.merge("omnibus", "car"),
        lambda: store.label({0: None}),
        lambda: give(store, at="2026-01-01T00:00:02Z", i3="tram"),
        lambda: give(store, at="2026-01-01T00:00:03Z", i0="boat"),
    ):
        action()
        states.append(state(folder, store))
    return states


@pytest.mark.parametrize("restarts", [(0,), (3, 5), range(10)])
def test_all_actions_are_undone_after_restarts(folder, restarts):
    store = open_store(folder)
    states = act_and_keep_states(folder, store)
    for undone in range(len(states) - 1):
        if undone in restarts:
            store = open_again(folder)
            assert state(folder, store) == states[-1]
        states.pop()
        store.undo()
        assert state(folder, store) == states[-1]
    assert not store.can_undo
    assert state(folder, open_again(folder)) == states[0]


def test_classes_without_an_image_outlive_a_restart(folder):
    store = open_store(folder, classes=("car", "bus"))
    give(store, i0="car")
    store.add("tram")
    assert open_again(folder).classes == ["car", "bus", "tram"]
    store = open_again(folder, classes=("van", "car"))
    assert store.classes == ["car", "bus", "tram", "van"]
    store.undo()
    assert store.classes == ["car", "bus", "van"]


def test_a_class_of_the_command_line_keeps_the_name_that_it_was_given(folder):
    store = open_store(folder, classes=("car", "bus"))
    give(store, i0="car")
    store.rename("car", "auto")
    store.merge("bus", "auto")
    assert open_again(folder, classes=("car", "bus")).classes == ["auto"]


def test_a_table_that_was_edited_is_right(folder):
    store = open_store(folder)
    give(store, i0="car", i1="bus")
    give(store, i0="bus")
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace("photos/b.jpg,bus", "photos/b.jpg,van"))
    store = open_again(folder)
    assert {image: label.label for image, label in store.given().items()} == {0: "bus", 1: "van"}
    assert store.classes == ["car", "bus", "van"]
    store.undo()
    assert not [label for label in store.given().values() if label.label == "car"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 1}', b'{"format": 2}', b"\xff"])
def test_a_history_that_is_damaged_or_missing_is_ignored_and_made_again(folder, content):
    store = open_store(folder)
    give(store, i0="car")
    store.add("tram")
    (folder / "labels.csv.history").write_bytes(content)
    store = open_again(folder)
    assert store.classes == ["car"]
    (folder / "labels.csv.history").unlink()
    store.add("tram")
    assert open_again(folder).classes == ["car", "tram"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_process_killed_between_the_two_files_loses_no_step(folder, monkeypatch, replaced):
    """Before the table is replaced, the history fits the old table; the step counts once the table is there."""
    store = open_store(folder)
    states = [state(folder, store)]
    give(store, i0="car", i1="bus")
    states.append(state(folder, store))
    give(store, i0="bus")
    states.append(state(folder, store))

    class Killed(BaseException):
        pass

    def kill(self, labels):
        if replaced:
            replace(self, labels)
        raise Killed

    replace = LabelTable.replace
    with monkeypatch.context() as patch:
        patch.setattr(LabelTable, "replace", kill)
        with pytest.raises(Killed):
            store.rename("bus", "coach")
    store = open_again(folder)
    if replaced:
        assert store.classes == ["car", "coach"]
        store.undo()
    for expected in reversed(states):
        assert state(folder, store) == expected
        store.undo()

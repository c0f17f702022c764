"""Requests that are sent again, and sessions that are continued."""

from __future__ import annotations

import json

from sessions import rows

from tlcli.datasets.label_table import GivenLabel, LabelTable
from tlcli.settings import NetworkSettings
from tlcli.training.active_learning.learner import ActiveLearner
from tlcli.web.label.proposer import Guide, Proposer
from tlcli.web.label.session import Answer, Session
from tlcli.web.label.store import LabelStore


def test_a_request_that_is_repeated_with_its_key_acts_once(inbox, labeling, tmp_path):
    """The page repeats a request if the answer was lost."""
    with labeling(inbox, tmp_path / "labels.csv") as client:
        headers = {"Authorization": f"Bearer {client.token}", "Idempotency-Key": "1"}
        image = client.batch(1)[0]["id"]

        def twice(key, path, body):
            sent = {**headers, "Idempotency-Key": key}
            answers = [client.request("POST", path, body, headers=sent) for _ in range(2)]
            assert [status for status, _, _ in answers] == [200, 200]
            first, second = (json.loads(content) for _, _, content in answers)
            for name in ("revision", "classes", "labelled", "undo"):
                assert first[name] == second[name]
            assert first.get("undone") == second.get("undone")
            return first

        twice("add", "/api/classes", {"add": "car"})
        twice("label", "/api/labels", {"labels": [{"id": image, "label": "car"}]})
        twice("rename", "/api/classes", {"rename": {"from": "car", "to": "auto"}})
        twice("back", "/api/classes", {"rename": {"from": "auto", "to": "car"}})
        twice("other", "/api/classes", {"add": "bus"})
        state = twice("merge", "/api/classes", {"merge": {"from": "car", "into": "bus"}})
        assert state["classes"] == [{"name": "bus", "count": 1}]
        assert [one["name"] for one in twice("undo", "/api/undo", {})["classes"]] == ["car", "bus"]
        assert twice("undo again", "/api/undo", {})["classes"] == [{"name": "car", "count": 1}]


def test_renamed_classes_are_proposed_after_a_restart(inbox, labeling, tmp_path, trained):
    """A run proposes its own classes, which the labels call otherwise."""
    out = tmp_path / "labels.csv"
    names = json.loads((trained.run / "run.json").read_text())["classes"]
    images = len(list(inbox.iterdir()))
    with labeling(inbox, out, network=NetworkSettings(backbone=str(trained.run))) as client:
        client.featurized(images)
        client.give({client.batch(1)[0]["id"]: names[0]})
        for old, new in ((names[0], "x"), ("x", names[0]), (names[0], "y")):
            client.post("/api/classes", {"rename": {"from": old, "to": new}})
        client.post("/api/classes", {"merge": {"from": names[1], "into": "y"}})
        left = {"y", *names[2:]}
        assert {image["proposal"] for image in client.batch(100)} == left
    with labeling(inbox, out, network=NetworkSettings(backbone=str(trained.run))) as client:
        state = client.featurized(images)
        assert {one["name"] for one in state["classes"]} == left
        assert {image["proposal"] for image in client.batch(100)} == left
        state = client.post("/api/undo", {})
        assert {one["name"] for one in state["classes"]} == {"y", *names[1:]}
        assert {image["proposal"] for image in client.batch(100)} == {"y", *names[1:]}


def test_an_image_chosen_at_random_remains_one_if_its_label_is_corrected(tmp_path):
    """In a session in which the image was not shown."""
    out, path = tmp_path / "labels.csv", str(tmp_path / "a.jpg")
    at = "2026-01-01T00:00:00Z"
    LabelTable(out).append([GivenLabel(path=path, label="a", source="random", at=at, proposed="b", confidence=0.5)])
    store = LabelStore(LabelTable(out), [path], ())
    session = Session([path], store, Proposer(ActiveLearner(2), [0], Guide()), {})
    session.answer([Answer(image=0, label="c")])
    (row,) = rows(out)
    assert (row["label"], row["source"], row["proposed"]) == ("c", "random", "b")

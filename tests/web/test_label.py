"""The HTTP interface of `tlcli label`, with a real network."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from sessions import rows, truth

from tlcli.commands.finetune import finetune
from tlcli.errors import DataError, MachineError
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings


@pytest.fixture(scope="module")
def untouched(photos, labeling, tmp_path_factory):
    """A session that no request changes."""
    out = tmp_path_factory.mktemp("untouched") / "labels.csv"
    with labeling(photos, out, classes=("a", "b")) as client:
        yield client
        assert client.get("/api/state")["revision"] == 0
    assert not out.exists()


def test_a_folder_is_labeled_with_proposals_and_becomes_a_classifier(inbox, labeling, tmp_path, report):
    names = sorted({path.name.partition("-")[0] for path in inbox.iterdir()})
    out, images = tmp_path / "labels.csv", len(list(inbox.iterdir()))
    before = {path.name: path.read_bytes() for path in inbox.iterdir()}
    right = proposed = 0
    with labeling(inbox, out, classes=tuple(names)) as client:
        state = client.featurized(images)
        assert state["classes"] == [{"name": name, "count": 0} for name in names]
        assert (state["images"], state["labelled"], state["estimate"]) == (images, 0, None)
        while batch := client.batch(8):
            for image in batch:
                proposed += image["proposal"] is not None
                right += image["proposal"] == truth(image)
            client.give({image["id"]: truth(image) for image in batch})
        state = client.get("/api/state")
        assert state["labelled"] == images == sum(one["count"] for one in state["classes"])
    assert proposed > images / 2
    assert right > 0.8 * proposed
    assert [row["label"] for row in rows(out)] == [truth(row) for row in rows(out)]
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == before
    info = finetune(
        FinetuneSettings(
            data=out,
            out=tmp_path / "run",
            network=NetworkSettings(size=64),
            compute=ComputeSettings(device="cpu", workers=1),
            cache=CacheSettings(directory=tmp_path / "cache"),
        ),
        report,
    )
    assert info["classes"] == names


def test_images_of_none_of_the_classes_are_left_out_of_training(inbox, labeling, tmp_path, report):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out) as client:
        batch = client.batch(20)
        first, *others = {truth(image) for image in batch}
        state = client.give({image["id"]: None if truth(image) == first else truth(image) for image in batch})
        assert state["none"] == sum(truth(image) == first for image in batch)
        assert {one["name"] for one in state["classes"]} == set(others)
        assert client.get("/api/labels")["images"][-1]["label"] in {None, *others}
    assert sum(row["label"] == "" for row in rows(out)) == state["none"]
    from tlcli.datasets.dataset import open_dataset

    dataset = open_dataset(out)
    assert len(dataset.samples) == 20 - state["none"]
    assert any("none of the classes" in note for note in dataset.notes)


def test_a_label_is_on_disk_when_the_response_arrives(inbox, labeling, tmp_path):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out, classes=("a", "b")) as client:
        for number, image in enumerate(client.batch(5)):
            client.give({image["id"]: "a"})
            assert len(rows(out)) == number + 1
        client.post("/api/undo", {})
        assert len(rows(out)) == 4


def test_classes_are_changed_while_labeling(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv") as client:
        client.post("/api/classes", {"add": "car"})
        image = client.batch(1)[0]
        client.give({image["id"]: "car"})
        state = client.post("/api/classes", {"rename": {"from": "car", "to": "auto"}})
        assert state["classes"] == [{"name": "auto", "count": 1}]
        client.post("/api/classes", {"add": "bus"})
        state = client.post("/api/classes", {"merge": {"from": "auto", "into": "bus"}})
        assert state["classes"] == [{"name": "bus", "count": 1}]
        for _ in range(5):
            state = client.post("/api/undo", {})
        assert (state["classes"], state["undo"]) == ([], {"possible": False})


def test_skipped_and_labeled_images_are_not_shown_again_before_others(inbox, labeling, tmp_path):
    images = len(list(inbox.iterdir()))
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        client.featurized(images)
        skipped = [image["id"] for image in client.batch(5)]
        client.post("/api/labels", {"labels": [{"id": image, "skip": True} for image in skipped]})
        seen = []
        while len(batch := [image["id"] for image in client.batch(5)]) == 5 and not set(batch) & set(skipped):
            seen += batch
            client.give(dict.fromkeys(batch, "a"))
        assert len(seen) == len(set(seen)) >= images - 10
        assert set(skipped) & set(batch)


def test_two_tabs_get_different_images(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        first = {image["id"] for image in client.batch(8, tab="one")}
        second = {image["id"] for image in client.batch(8, tab="two")}
        assert len(first) == len(second) == 8
        assert not first & second
        assert not {image["id"] for image in client.batch(8, tab="one")} & (first | second)


def test_more_images_like_one(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        client.featurized(len(list(inbox.iterdir())))
        image = client.batch(1)[0]
        similar = client.batch(5, like=image["id"])
        assert len(similar) == 5
        assert image["id"] not in {one["id"] for one in similar}
        assert sum(truth(one) == truth(image) for one in similar) >= 4


def test_images_are_reencoded_and_sized(inbox, labeling, tmp_path):
    (inbox / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    exif = Image.Exif()
    exif[0x010E] = "secret"
    Image.new("RGB", (800, 200), "red").save(inbox / "wide.jpg", exif=exif)
    with labeling(inbox, tmp_path / "labels.csv") as client:
        paths = [path.name for path in sorted(inbox.iterdir())]
        status, headers, content = client.request("GET", f"/image/{paths.index('wide.jpg')}?side=256")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (256, 64)
        assert b"secret" not in content
        status, _, content = client.request("GET", f"/image/{paths.index('broken.jpg')}")
        assert status == 404
        assert "broken.jpg cannot be shown" in json.loads(content)["error"]["message"]
        state = client.featurized(len(paths))
        assert state["failed"] == 1
        assert all("broken" not in image["path"] for image in client.batch(100))


def test_an_image_that_vanishes_does_not_end_the_session(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        client.featurized(len(list(inbox.iterdir())))
        image = client.batch(1)[0]
        (inbox / image["path"].rpartition("/")[2]).unlink()
        assert client.request("GET", f"/image/{image['id']}")[0] == 404
        assert client.give({image["id"]: "a"})["labelled"] == 1


def test_labels_that_cannot_be_written_are_refused_and_can_be_sent_again(inbox, labeling, tmp_path, monkeypatch):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out, classes=("a", "b")) as client:
        image = client.batch(1)[0]["id"]
        with monkeypatch.context() as patch:
            patch.setattr("tlcli.storage.appended_table.AppendedTable._write", _drive_gone)
            status, _, content = client.request("POST", "/api/labels", {"labels": [{"id": image, "label": "a"}]})
            assert (status, json.loads(content)["error"]["kind"]) == (503, "environment")
            assert client.get("/api/state")["labelled"] == 0
        assert client.give({image: "a"})["labelled"] == 1
    assert len(rows(out)) == 1


def _drive_gone(self, content):
    raise OSError(5, "Input/output error", str(self.path))


def test_the_next_session_continues_the_table(inbox, labeling, tmp_path):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out, classes=("a", "b")) as client:
        done = [image["id"] for image in client.batch(6)]
        client.give(dict.fromkeys(done, "a"))
    with labeling(inbox, out) as client:
        state = client.get("/api/state")
        assert (state["labelled"], state["classes"]) == (6, [{"name": "a", "count": 6}, {"name": "b", "count": 0}])
        assert not {image["id"] for image in client.batch(20)} & set(done)


def test_a_second_process_on_one_table_is_refused(inbox, labeling, tmp_path):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out), pytest.raises(MachineError, match="is locked"), labeling(inbox, out):
        pass


def test_a_table_of_something_else_is_refused(inbox, labeling, tmp_path):
    out = tmp_path / "labels.csv"
    out.write_text("path,label\na.jpg,car\n")
    with pytest.raises(DataError, match="cannot be continued"), labeling(inbox, out):
        pass
    assert out.read_text() == "path,label\na.jpg,car\n"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/batch?size=0", None),
        ("GET", "/api/batch?size=x", None),
        ("GET", "/api/batch?size=5&class=nobody", None),
        ("GET", "/api/batch?size=5&like=999999", None),
        ("GET", "/image/0?side=99999", None),
        ("POST", "/api/labels", {"labels": [{"id": 10**9, "label": "a"}]}),
        ("POST", "/api/labels", {"labels": [{"id": -1, "label": "a"}]}),
        ("POST", "/api/labels", {"labels": [{"id": True, "label": "a"}]}),
        ("POST", "/api/labels", {"labels": [{"id": 0, "label": 7}]}),
        ("POST", "/api/labels", {"labels": [{"id": 0, "label": "a\nb"}]}),
        ("POST", "/api/labels", {"labels": [{"id": 0}]}),
        ("POST", "/api/labels", {"labels": "all"}),
        ("POST", "/api/labels", {}),
        ("POST", "/api/labels", [1]),
        ("POST", "/api/labels", "{" * 5000),
        ("POST", "/api/classes", {"add": 1}),
        ("POST", "/api/classes", {"rename": {"from": "a", "to": "b"}}),
        ("POST", "/api/classes", {}),
    ],
)
def test_malformed_requests_change_nothing_and_say_what_is_expected(untouched, method, path, body):
    status, _, content = untouched.request(method, path, body)
    assert status == 400
    assert json.loads(content)["error"]["message"]


def test_a_skip_is_undone_as_a_step_of_its_own(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        first, second = client.batch(2)
        client.give({first["id"]: "a"})
        client.post("/api/labels", {"labels": [{"id": second["id"], "skip": True}]})
        state = client.post("/api/undo", {})
        assert (state["labelled"], state["undone"]) == (1, [second["id"]])
        assert client.post("/api/undo", {})["labelled"] == 0


def test_a_repeated_request_is_no_second_step(inbox, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", classes=("a", "b")) as client:
        for _ in range(2):
            client.give({0: "a", 1: None})
        assert client.post("/api/undo", {})["undo"] == {"possible": False}


@pytest.mark.parametrize("path", ["/?" + "a=1&" * 30, f"/image/{'9' * 5000}"])
def test_endless_addresses_are_refused(untouched, path):
    assert untouched.request("GET", path)[0] in {200, 401, 404}

"""The HTTP interface of `tlcli label`, with a real network."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from sessions import flat_copy

from tlcli.commands.finetune import finetune
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings
from tlcli.storage.files import sha256_file


@pytest.fixture
def inbox(photos, tmp_path):
    return flat_copy(photos, tmp_path / "inbox")


@pytest.fixture(scope="module")
def untouched(photos, labeling, tmp_path_factory):
    """A session that no request changes."""
    out = tmp_path_factory.mktemp("untouched") / "labels.csv"
    with labeling(photos, out, classes=("a", "b")) as client:
        yield client
        assert client.get("/api/state")["revision"] == 0
    assert not out.exists()


def truth(image):
    return image["path"].rpartition("/")[2].partition("-")[0]


def rows(out):
    with out.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


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
        assert (state["labelled"], state["classes"]) == (6, [{"name": "a", "count": 6}])
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


def test_predictions_are_labeled_in_the_order_of_doubt(inbox, labeling, tmp_path):
    paths = sorted(inbox.iterdir())[:6]
    table = tmp_path / "rows.csv"
    statuses = ["ok", "review", "unknown", "ok", "review", "ok"]
    lines = [
        f"{path},car,0.{number}5,{status},"
        for number, (path, status) in enumerate(zip(paths, statuses, strict=True), 1)
    ]
    table.write_text("\n".join(["path,label,confidence,status,error", *lines, ""]))
    with labeling(table, tmp_path / "labels.csv") as client:
        batch = client.batch(3)
        assert sorted(image["id"] for image in batch) == [1, 2, 4]
        assert {image["proposal"] for image in batch} == {"car"}
        assert sorted(image["confidence"] for image in batch) == [0.25, 0.35, 0.55]


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


def test_wrong_labels_are_found_reviewed_and_corrected(photos, labeling, tmp_path, report):
    """Reviewing a tenth of the images repairs most wrong labels, and finetune takes the corrections."""
    paths = sorted(photos.rglob("*.jpg"))
    names = sorted({path.parent.name for path in paths})
    wrong = {path: names[(names.index(path.parent.name) + 1) % 3] for path in paths[::15]}
    data, out = tmp_path / "data.csv", tmp_path / "corrections.csv"
    lines = [f"{path},{wrong.get(path, path.parent.name)}" for path in paths]
    data.write_text("\n".join(["path,label", *lines, ""]))
    with labeling(data, out) as client:
        client.featurized(len(paths))
        while not (batch := client.batch(6)):
            time.sleep(0.1)
        found = [image for image in batch if Path(image["path"]) in wrong]
        assert len(found) == 3
        assert all(image["label"] == wrong[Path(image["path"])] for image in found)
        client.give({image["id"]: Path(image["path"]).parent.name for image in batch[:5]})
        state = client.give({batch[5]["id"]: None})
        assert (state["mode"], state["labelled"]) == ("review", 6)
        assert state["review"]["changed"] == state["review"]["latest_changed"] >= 3
    with out.open(encoding="utf8", newline="") as file:
        written = list(csv.DictReader(file))
    assert {row["digest"] for row in written} == {sha256_file(Path(image["path"])) for image in batch}
    assert sum(row["new"] == "" for row in written) == 1
    info = finetune(
        FinetuneSettings(
            data=data,
            corrections=out,
            out=tmp_path / "run",
            network=NetworkSettings(size=64),
            compute=ComputeSettings(device="cpu", workers=1),
            cache=CacheSettings(directory=tmp_path / "cache"),
        ),
        report,
    )
    assert info["corrections"]["left_out"] == 1
    assert info["corrections"]["corrected"] + info["corrections"]["left_out"] >= 3
    with labeling(data, out) as client:
        assert client.get("/api/state")["labelled"] == 6


def test_findings_of_check_are_reviewed(photos, labeling, tmp_path):
    paths = sorted(photos.rglob("*.jpg"))[:3]
    table = tmp_path / "findings.csv"
    lines = [f"suspect,{path},square,,detail,,disc,0.5" for path in paths]
    header = "kind,path,class,split,detail,other_path,other_class,score"
    table.write_text("\n".join([header, *lines, "imbalance,,square,,detail,,,", ""]))
    with labeling(table, tmp_path / "corrections.csv") as client:
        batch = client.batch(10)
        assert [image["path"] for image in batch] == [str(path) for path in paths]
        assert {(image["label"], image["proposal"]) for image in batch} == {("square", "disc")}


def test_a_run_proposes_from_the_first_image(inbox, trained, labeling, tmp_path):
    with labeling(inbox, tmp_path / "labels.csv", network=NetworkSettings(backbone=str(trained.run))) as client:
        client.featurized(len(list(inbox.iterdir())))
        batch = client.batch(20)
        assert sum(image["proposal"] == truth(image) for image in batch) > 17
        assert [one["name"] for one in client.get("/api/state")["classes"]] == ["disc", "square", "stripes"]
    with (
        pytest.raises(UsageError, match="--size has no effect"),
        labeling(inbox, tmp_path / "other.csv", network=NetworkSettings(backbone=str(trained.run), size=64)),
    ):
        pass


def test_a_folder_of_unreadable_images_keeps_the_session(labeling, tmp_path, report):
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"no image")
    with labeling(folder, tmp_path / "labels.csv", report=report) as client:
        state = client.featurized(3)
        assert (state["failed"], client.batch(5)) == (3, [])
    assert any("3 of 3 images cannot be read" in warning for warning in report.warnings)


def test_names_that_are_not_text_survive_in_another_folder(inbox, labeling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    odd = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(next(inbox.iterdir()), inbox / odd)
    for _ in range(2):
        with labeling(inbox, folder / "labels.csv", classes=("a", "b")) as client:
            images = {image["path"].rpartition("/")[2]: image["id"] for image in client.batch(100)}
            if "caf%E9.jpg" in images:
                assert client.give({images["caf%E9.jpg"]: "a"})["labelled"] == 1
    with labeling(inbox, folder / "labels.csv", classes=("a", "b")) as client:
        assert client.get("/api/state")["labelled"] == 1
        assert client.get("/api/labels")["images"][0]["path"].endswith("caf%E9.jpg")


def test_each_image_of_a_list_is_shown_once(inbox, labeling, tmp_path, monkeypatch):
    monkeypatch.chdir(inbox)
    name = next(inbox.iterdir()).name
    (tmp_path / "list.txt").write_text(f"{name}\n./{name}\n{inbox / name}\n")
    with labeling(f"@{tmp_path / 'list.txt'}", tmp_path / "labels.csv", classes=("a", "b")) as client:
        assert client.get("/api/state")["images"] == 1
        client.give({0: "a"})
        assert client.batch(5) == []


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


def test_proposals_that_were_shown_follow_a_renamed_class(inbox, trained, labeling, tmp_path):
    out = tmp_path / "labels.csv"
    with labeling(inbox, out, network=NetworkSettings(backbone=str(trained.run))) as client:
        client.featurized(len(list(inbox.iterdir())))
        image = next(image for image in client.batch(20) if image["proposal"] == "disc")
        client.post("/api/classes", {"rename": {"from": "disc", "to": "circle"}})
        client.give({image["id"]: "circle"})
        assert "disc" not in {image["proposal"] for image in client.batch(100)}
    assert rows(out)[0]["proposed"] == "circle"


def test_an_error_in_labeled_data_is_not_taken_for_unlabeled_images(photos, labeling, tmp_path):
    paths = sorted(photos.rglob("*.jpg"))
    data = tmp_path / "data.csv"
    data.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths) + f"{paths[0]},\n")
    with pytest.raises(DataError, match=r"is empty.*give --classes"), labeling(data, tmp_path / "out.csv"):
        pass
    with labeling(data, tmp_path / "out.csv", classes=("a", "b")) as client:
        assert client.get("/api/state")["mode"] == "label"


def test_a_review_shows_labels_that_could_not_be_compared_as_well(photos, labeling, tmp_path):
    data = tmp_path / "data.csv"
    data.write_text(
        "path,label\n" + "".join(f"{photos / name},{name[:1]}\n" for name in ("disc/00.jpg", "square/00.jpg"))
    )
    with labeling(data, tmp_path / "corrections.csv") as client:
        client.featurized(2)
        for _ in range(100):
            if not client.get("/api/state")["notice"]:
                break
            time.sleep(0.1)
        assert len(client.batch(5)) == 2


@pytest.mark.parametrize("path", ["/?" + "a=1&" * 30, f"/image/{'9' * 5000}"])
def test_endless_addresses_are_refused(untouched, path):
    assert untouched.request("GET", path)[0] in {200, 401, 404}

"""What `tlcli label` shows, by what SOURCE is: predictions, findings, labeled DATA, lists, and unusual files."""

from __future__ import annotations

import csv
import os
import shutil
import time
from pathlib import Path

import pytest
from sessions import rows, truth

from tlcli.commands.finetune import finetune
from tlcli.errors import DataError, UsageError
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings
from tlcli.storage.files import sha256_file


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

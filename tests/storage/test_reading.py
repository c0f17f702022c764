"""Images at URLs give the same results as local copies."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tlcli.cli.main import run
from tlcli.commands.cache_features import cache_features
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    EvaluateSettings,
    FinetuneSettings,
    NetworkSettings,
    PredictSettings,
)
from tlcli.storage.urls import parse_location


def predicted(trained, *inputs):
    return predict(PredictSettings(run=trained.run, inputs=tuple(map(str, inputs)))).rows


@pytest.fixture(scope="module")
def odd(s3, tmp_path_factory):
    """A folder with images and other files, on this machine and at a URL."""
    root = tmp_path_factory.mktemp("odd") / "odd"
    names = "train/b/1.jpg train/b/in/2.PNG train/b/.hidden.jpg train/b/notes.txt train/.git/x.jpg train/a/1.jpg "
    for name in (names + "train/stray.jpg val/a/z%20 ü.jpg val/a/aa/1.jpg other/x.jpg .DS_Store").split(" "):
        path = root / name.replace("%20", " ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    s3.put(str(root), "bucket/odd", recursive=True)
    s3.touch("bucket/odd/train/")  # as web consoles create for an empty folder
    return root


def test_remote_folder_is_listed_like_a_local_one(odd, faults):
    here, there = open_dataset(odd), open_dataset(parse_location("s3://bucket/odd"))
    assert [sample.path.removeprefix("s3://bucket/odd") for sample in there.samples] == [
        sample.path.removeprefix(str(odd)) for sample in here.samples
    ]
    for field in ("label", "split", "group"):
        assert [getattr(one, field) for one in there.samples] == [getattr(one, field) for one in here.samples]
    assert (there.classes, there.skipped) == (here.classes, here.skipped)
    assert sum(method == "?" for method, _ in faults.requests) <= 2, "one listing, not one per folder"
    found, expected = PredictionInputs(("s3://bucket/odd/",), io.BytesIO()), PredictionInputs((str(odd),), io.BytesIO())
    assert [path.removeprefix("s3://bucket/odd") for path in found] == [p.removeprefix(str(odd)) for p in expected]
    assert +found.skipped == +expected.skipped
    assert [read_image(path, DecodeOptions()).digest for path in found] == [
        read_image(p, DecodeOptions()).digest for p in expected
    ]


def test_training_and_evaluation_equal_the_local_ones(trained, remote_photos, photos, faults, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"network": NetworkSettings(size=64), "cache": CacheSettings(directory=trained.cache)}
    info = finetune(FinetuneSettings(data=parse_location(remote_photos), **settings))
    assert info["run"] == "runs/photos"
    assert info["data"]["root"] == remote_photos
    for key in ("confusion", "loss", "accuracy"):
        assert info["validation"][key] == trained.info["validation"][key]
    faults.requests.clear()
    found = cache_features(CacheFeaturesSettings(data=parse_location(remote_photos), **settings))
    assert (found["computed"], found["reused"]) == (0, 45)
    assert "GET" not in dict(faults.requests), "images with a known entity tag are not read again"
    there, here = (
        evaluate(EvaluateSettings(run=trained.run, data=parse_location(str(d)))) for d in (remote_photos, photos)
    )
    assert (there["confusion"], there["loss"]) == (here["confusion"], here["loss"])


def test_rows_contain_paths_as_typed(trained, remote_photos, photos):
    inputs = "stripes", "disc/03.jpg"
    rows = predicted(trained, *(f"{remote_photos}/{name}" for name in inputs))
    expected = predicted(trained, *(photos / name for name in inputs))
    assert [row["path"] for row in rows] == [row["path"].replace(str(photos), remote_photos) for row in expected]
    assert [row["confidence"] for row in rows] == [row["confidence"] for row in expected]


def test_tables_and_lists_may_name_urls(trained, s3, remote_photos, photos, tmp_path):
    lines = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.rglob("0*.jpg"))]
    s3.pipe_file("bucket/photos.csv", "\n".join(["path,label", *(f"photos/{line}" for line in lines)]).encode())
    (tmp_path / "here.csv").write_text("\n".join(["path,label", *(f"{remote_photos}/{line}" for line in lines)]))
    with (tmp_path / "here.jsonl").open("w") as file:
        for line in lines:
            path, label = line.split(",")
            file.write(json.dumps({"path": f"{remote_photos}/{path}", "label": label}) + "\n")
    for name in ("s3://bucket/photos.csv", str(tmp_path / "here.csv"), str(tmp_path / "here.jsonl")):
        dataset = open_dataset(parse_location(name))
        assert [sample.path for sample in dataset.samples] == [
            f"{remote_photos}/{line.split(',')[0]}" for line in lines
        ]
        assert all(sample.path.size > 0 for sample in dataset.samples)
    s3.pipe_file("bucket/tables/up.csv", "\n".join(["path,label", *(f"../photos/{line}" for line in lines)]).encode())
    assert open_dataset(parse_location("s3://bucket/tables/up.csv")).samples == dataset.samples
    s3.pipe_file("bucket/list.txt", f"{remote_photos}/disc/00.jpg\n{photos}/disc/00.jpg\n".encode())
    rows = predicted(trained, "@s3://bucket/list.txt")
    assert rows[0]["confidence"] == rows[1]["confidence"]
    s3.pipe_file("bucket/wrong.csv", b"path,label\nphotos/disc/00.jpg,a\nphotos/no.jpg,b\n")
    with pytest.raises(DataError, match=r"1 of the 2 paths in it do not exist, such as photos/no.jpg"):
        open_dataset(parse_location("s3://bucket/wrong.csv"))


def test_remote_shards_equal_local_images(trained, s3, photos, faults):
    for number, shape in enumerate(("disc", "square", "stripes")):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted((photos / shape).iterdir()):
                tar.add(path, f"{shape}-{path.name}")
                info = tarfile.TarInfo(f"{shape}-{path.stem}.cls")
                info.size = len(shape)
                tar.addfile(info, io.BytesIO(shape.encode()))
        s3.pipe_file(f"bucket/shards/{number}.tar", file.getvalue())
    s3.pipe_file("bucket/shards/cut.tar", file.getvalue()[:30_000])
    dataset = open_dataset(parse_location("s3://bucket/shards/{0..2}.tar"))
    assert len(dataset.samples) == 45
    faults.requests.clear()
    rows = predicted(trained, "s3://bucket/shards/1.tar", "s3://bucket/shards/0.tar/disc-04.jpg")
    expected = predicted(trained, photos / "square", photos / "disc" / "04.jpg")
    assert [row["confidence"] for row in rows] == [row["confidence"] for row in expected]
    assert rows[-1]["path"] == "s3://bucket/shards/0.tar/disc-04.jpg"
    for name, message in [("cut.tar", "not a complete tar"), ("{0..3}.tar", r"3.tar does not exist")]:
        with pytest.raises(DataError, match=message):
            open_dataset(parse_location(f"s3://bucket/shards/{name}"))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("s3://nobody/photos", 4, "s3://nobody/photos does not exist"),
        ("s3://bucket/nothing", 4, "does not exist"),
        ("gs://bucket/photos", 5, "pip install 'tlcli[gcs]'"),
        ("frob://bucket/photos", 2, "not a scheme that fsspec supports"),
        ("memory://photos", 2, "local to one process"),
        ("https://me:hidden@host/photos/", 2, "contains credentials"),
        ("https://host/a.jpg?X-Amz-Signature=hidden", 2, "contains credentials"),
        ("https://hidden@host/photos/", 2, "contains credentials"),
        ("s3://me:hid/hidden@bucket/photos", 2, "contains credentials"),
    ],
)
def test_invalid_urls_are_reported(service, trained, name, code, message, capfd):
    for arguments in (["predict", str(trained.run), name], ["finetune", name]):
        assert run([*arguments, "--json"]) == code
        output = capfd.readouterr()
        error = json.loads(output.out)["error"]
        assert message in error["message"]
        assert "hidden" not in output.out + output.err


def test_table_with_credentials_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\nhttps://me:hidden@host/a.jpg,a\n")
    with pytest.raises(DataError, match=r"row 1 .*: a URL with https:// contains credentials") as refused:
        open_dataset(tmp_path / "t.csv")
    assert "hidden" not in str(refused.value)
    with pytest.raises(DataError, match="line 1 of the list"):
        list(PredictionInputs(("-",), io.BytesIO(b"https://me:hidden@host/a.jpg\n")))


LISTING = """
from tlcli.errors import MachineError
from tlcli.storage import connection, remote
connection.PAUSE = 0.01
try:
    remote.listing(remote.Url("s3://bucket/photos"))
except MachineError as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Provide credentials: AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Check the network"),
    ],
)
def test_missing_credentials_and_unreachable_endpoint_are_reported(service, environment, message, tmp_path):
    environment = os.environ | {"HOME": str(tmp_path)} | environment
    done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=True, env=environment)
    assert message in done.stdout


def test_file_urls_are_paths(photos):
    assert parse_location(f"file://{photos}") == photos


def test_credentials_in_urls_are_detected():
    for good in ("s3://bucket/a@b?key=1.jpg", "https://host/a.jpg?design=3", "abfs://box@account.host/c"):
        assert str(parse_location(good)) == good
    for bad in ("ftp://me:word@host/x", "http://host/x?a=1&sig=2", "https://host/?access_token=1", "s3://b/../c"):
        with pytest.raises(UsageError):
            parse_location(bad)


def test_denied_access_error_mentions_credentials(monkeypatch):
    from tlcli.storage import remote

    def refuse(*_, **__):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(remote, "request", refuse)
    with pytest.raises(MachineError, match=r"access denied \(Forbidden\). Provide credentials: AWS_ACCESS_KEY_ID"):
        remote.listing(parse_location("s3://bucket/photos"))

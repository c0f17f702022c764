"""Faults of object stores and web servers: retries give the same result, and a permanent fault costs one row."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tlcli.cli.main import run
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import DataError, MachineError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.storage import connection, remote
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url, parse_location


def disc(number):
    return f"bucket/photos/disc/{number:02d}.jpg"


def predicted(trained, name, capfd):
    code = run(["predict", str(trained.run), name, "--json"])
    return code, json.loads(capfd.readouterr().out)["rows"]


@pytest.fixture
def short_pauses(monkeypatch):
    """Shorten the pauses between attempts in this process."""
    monkeypatch.setattr(connection, "PAUSE", 0.01)


@pytest.mark.slow
def test_transient_faults_change_nothing_and_permanent_ones_cost_a_row(trained, remote_photos, photos, faults, capfd):
    _, expected = predicted(trained, str(photos / "disc"), capfd)
    faults.latency = 0.02
    faults.throttled.update({disc(0): 2, disc(1): 1, disc(2): 99})
    faults.reset.update({disc(3): 1, disc(4): 2, disc(5): 99})
    faults.missing.add(disc(6))
    code, rows = predicted(trained, f"{remote_photos}/disc", capfd)
    assert code == 3
    failed = {"02": "reduce your request rate", "05": "", "06": "there is no such object"}
    assert [row["path"].removeprefix("s3://bucket/photos") for row in rows] == [
        row["path"].removeprefix(str(photos)) for row in expected
    ]
    for row, whole in zip(rows, expected, strict=True):
        number = row["path"][-6:-4]
        assert row["status"] == ("failed" if number in failed else "ok")
        if number in failed:
            assert row["error"].startswith("cannot be read: ")
            assert failed[number] in row["error"]
            assert row["label"] is None
        else:
            assert row["confidence"] == whole["confidence"]
    attempts = [key for method, key in faults.requests if method == "GET"]
    assert attempts.count(disc(2)) == attempts.count(disc(5)) == connection.ATTEMPTS
    assert attempts.count(disc(6)) == 1, "a missing object is not requested again"


@pytest.mark.slow
def test_whole_objects_are_read_with_retries(s3, faults, short_pauses):
    s3.pipe_file("bucket/big.bin", content := bytes(range(256)) * 12_000)
    faults.throttled["bucket/big.bin"] = 2
    faults.reset["bucket/big.bin"] = 2
    assert remote.content_of(Url("s3://bucket/big.bin")) == content
    faults.throttled["bucket/big.bin"] = 99
    with pytest.raises(Exception, match="cannot be reached: Please reduce your request rate"):
        remote.content_of(Url("s3://bucket/big.bin"))


def test_image_that_changes_size_after_the_listing_fails(s3, faults, short_pauses):
    s3.pipe_file("bucket/changing/a/1.jpg", b"x" * 100)
    s3.pipe_file("bucket/changing/b/1.jpg", b"x" * 100)
    dataset = open_dataset(parse_location("s3://bucket/changing"))
    s3.pipe_file("bucket/changing/a/1.jpg", b"x" * 90)
    assert "received 90 of 100 bytes" in read_image(dataset.samples[0].path, DecodeOptions()).error


def test_size_limit_is_checked_before_reading(s3, faults, monkeypatch):
    monkeypatch.setattr("tlcli.images.worker.MAX_BYTES", 8)
    s3.pipe_file("bucket/large.jpg", b"x" * 10)
    faults.requests.clear()
    for size in (10, UNKNOWN):
        path = StoredPath("s3://bucket/large.jpg", "s3://bucket/large.jpg", size=size, version=UNKNOWN)
        assert "more than the limit of 8" in read_image(path, DecodeOptions()).error
    assert "GET" not in dict(faults.requests)


@pytest.mark.slow
def test_download_time_does_not_count_as_decoding_time(remote_photos, faults):
    faults.latency = 1.0
    path = f"s3://{disc(0)}"
    with ImageLoader(DecodeOptions(), workers=1, time_limit=0.9) as loader:
        (image,) = loader.load([StoredPath(path, path, size=UNKNOWN, version=UNKNOWN)])
    assert image.digest is not None


def test_hanging_attempt_times_out(s3, faults):
    s3.pipe_file("bucket/slow.jpg", b"x" * 10)
    faults.latency = 1.0
    with pytest.raises(Exception) as hung:
        connection.request(Url("s3://bucket/slow.jpg"), "cat_file", 0.2, start=0, end=10)
    assert "no answer within" in connection.reason(hung.value)


def test_pauses_grow_up_to_the_time_limit(monkeypatch):
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(connection.time, "sleep", sleep)

    def failing(seconds):
        def attempt(limit):
            now[0] += seconds
            raise TimeoutError

        return attempt

    with pytest.raises(TimeoutError):
        connection.retrying(failing(0))
    assert [0.25 * 2**n <= pause <= 0.5 * 2**n for n, pause in enumerate(pauses)] == [True] * 4
    now[0] = 0
    with pytest.raises(TimeoutError):
        connection.retrying(failing(50))
    assert now[0] <= connection.READ_LIMIT + 50, "no attempt starts after the time limit"


@pytest.mark.parametrize(
    ("answers", "kind", "message", "requests"),
    [
        ([503, 503, 200], None, "", 3),
        ([404], DataError, "does not exist", 2),
        ([403], MachineError, "access denied", 2),
        ([503] * 20, MachineError, "cannot be reached", 10),
    ],
)
def test_http_statuses_are_distinguished(answers, kind, message, requests, monkeypatch):
    monkeypatch.setattr(connection, "PAUSE", 0.01)
    asked = []

    class Answering(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.command)
            self.send_response(answers[min(len(asked), len(answers)) - 1])
            self.send_header("Content-Length", "5")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"hello")

        do_HEAD = do_GET = answer  # noqa: N815 - the names are those of the base class

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = Url(f"http://127.0.0.1:{server.server_port}/list.txt")
        with pytest.raises(kind, match=message) if kind else contextlib.nullcontext():
            assert remote.RemoteFile(url).stored.size == 5
        server.shutdown()
    assert len(asked) == requests


def test_cache_features_lists_unreadable_images(remote_photos, faults, tmp_path, capfd):
    faults.missing.add(disc(14))
    faults.reset[disc(13)] = 1
    assert run(["cache-features", remote_photos, "--size", "64", "--cache", str(tmp_path), "--json"]) == 3
    failures = json.loads(capfd.readouterr().out)["failures"]
    assert failures == [{"path": f"s3://{disc(14)}", "error": "cannot be read: there is no such object"}]


def test_missing_objects_in_lists_get_failed_rows(trained, s3, faults, tmp_path, capfd):
    (tmp_path / "list.txt").write_text("s3://bucket/no.jpg\ngs://bucket/no.jpg\n")
    code, rows = predicted(trained, f"@{tmp_path / 'list.txt'}", capfd)
    assert code == 3
    assert "no such object" in rows[0]["error"]
    assert "pip install 'tlcli[gcs]'" in rows[1]["error"]


def test_inputs_are_listed_once(faults, remote_photos):
    found = PredictionInputs((f"{remote_photos}/disc",), io.BytesIO())
    assert list(found) == list(found)
    assert sum(method == "?" for method, _ in faults.requests) <= 2


@pytest.fixture
def whole_files(tmp_path):
    """The URL of a folder on a web server that ignores byte ranges, and the number of bytes that it sent."""
    sent = []

    class Whole(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def copyfile(self, source, outputfile):
            sent.append(len(content := source.read()))
            with contextlib.suppress(ConnectionError):
                outputfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Whole) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


@pytest.mark.parametrize("blank", [0, 3 * 2**20])
@pytest.mark.parametrize("command", ["predict", "finetune", "label"])
def test_a_web_server_without_byte_ranges_is_reported_once(trained, photos, whole_files, capfd, command, blank):
    """A small tar is listed by one request, so that only its images could not be read."""
    folder, address, sent = whole_files
    with tarfile.open(folder / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
        if blank:
            info = tarfile.TarInfo("blank.bin")
            info.size = blank
            tar.addfile(info, io.BytesIO(bytes(blank)))
    arguments = {"predict": ["predict", str(trained.run)], "finetune": ["finetune"], "label": ["label"]}[command]
    assert run([*arguments, f"{address}/photos.tar"]) == 5
    error = capfd.readouterr().err
    assert error.count("does not support byte ranges") == 1
    assert "Download the file" in " ".join(error.split())
    assert len(sent) <= 2


def test_small_files_are_read_from_a_web_server_without_byte_ranges(whole_files):
    folder, address, _ = whole_files
    (folder / "list.txt").write_bytes(b"hello")
    assert remote.content_of(Url(f"{address}/list.txt")) == b"hello"
    (folder / "list.txt").write_bytes(bytes(2**21))
    with pytest.raises(MachineError, match="does not support byte ranges"):
        remote.content_of(Url(f"{address}/list.txt"))

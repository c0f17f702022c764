"""`tlcli label` as a process: its address on stdout, Ctrl-C, and a kill at any moment."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

TLCLI = [sys.executable, "-m", "tlcli"]


@pytest.fixture
def start(photos, tmp_path):
    """Start a session; return its process and a function that sends a request."""
    processes = []

    def started(*options, source=photos):
        command = [*TLCLI, "label", str(source), "--out", "labels.csv", "--no-browser", "--size", "64", *options]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"TLCLI_CACHE": str(tmp_path / "cache")},
        )
        processes.append(process)
        address = json.loads(process.stdout.readline())
        root = address["url"].partition("/?")[0]
        assert address["url"] == f"{root}/?token={address['token']}"

        def send(path, body=None):
            request = urllib.request.Request(
                root + path,
                None if body is None else json.dumps(body).encode(),
                {"Authorization": f"Bearer {address['token']}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)

        return process, send

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def in_class(row):
    return Path(row["path"]).parts[-2:]


def rows(folder):
    with (folder / "labels.csv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_session_and_says_what_is_saved(start, tmp_path, number, code):
    process, send = start("--classes", "car,bus")
    image = send("/api/batch?size=1")["images"][0]["id"]
    send("/api/labels", {"labels": [{"id": image, "label": "car"}]})
    process.send_signal(number)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"1 labels are saved in labels.csv" in messages or b"1 label is saved in labels.csv" in messages
    assert b"tlcli finetune labels.csv" in messages
    assert b"Traceback" not in messages


def test_a_killed_session_loses_no_label(start, tmp_path):
    process, send = start("--classes", "car,bus")
    saved = []
    for image in send("/api/batch?size=10")["images"]:
        send("/api/labels", {"labels": [{"id": image["id"], "label": "car"}]})
        saved.append(in_class(image))
    process.kill()
    process.communicate()
    assert [in_class(row) for row in rows(tmp_path)] == saved
    _, send = start()
    state = send("/api/state")
    assert state["labelled"] == 10
    assert not {in_class(image) for image in send("/api/batch?size=30")["images"]} & set(saved)


def test_a_taken_port_is_an_error_of_the_environment(photos, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*TLCLI, "label", str(photos), "--classes", "a,b", "--port", str(port), "--no-browser"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 5
    assert f"port {port}".encode() in done.stderr
    assert b"--port" in done.stderr
    assert done.stdout == b""

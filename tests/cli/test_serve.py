"""`tlcli serve` as a process: its address on stdout, what it imports, signals, and the run on disk that changes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tlcli.storage.files import sealed, write_json

OBSERVED = """
import sys, threading
def tell():
    sys.stdin.readline()
    print("HEAVY", sorted({"torch", "timm", "sklearn"} & set(sys.modules)), file=sys.stderr, flush=True)
threading.Thread(target=tell, daemon=True).start()
from tlcli.cli.main import main
main()
"""


class Server:
    """A server's process."""

    def __init__(self, run, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OBSERVED, "serve", str(run), "--port", "0", "--workers", "1", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read().decode()
        self.address = json.loads(line)

    def connect(self):
        return http.client.HTTPConnection(urlsplit(self.address["url"]).netloc, timeout=30)

    def predict(self, content, query=""):
        connection = self.connect()
        connection.request("POST", f"/v1/predict{query}", content, self.headers)
        response = connection.getresponse()
        found = response.status, json.loads(response.read())
        connection.close()
        return found

    @property
    def headers(self):
        return {"Authorization": f"Bearer {self.address['token']}"}

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, messages = self.process.communicate(timeout=60)
        return self.process.returncode, messages.decode()


@pytest.fixture
def start():
    """Start servers with `start(run, *options)`; they end with the test."""
    servers = []

    def started(*arguments):
        servers.append(Server(*arguments))
        return servers[-1]

    yield started
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def image(photos):
    return (photos / "disc" / "03.jpg").read_bytes()


@pytest.fixture
def own_run(trained, tmp_path):
    return shutil.copytree(trained.run, tmp_path / "run")


def change(run, **values):
    """Change a run's `run.json` as another training would, in one step."""
    info = json.loads((run / "run.json").read_text()) | values
    new = run / "run.json.new"
    write_json(new, sealed(info))
    new.replace(run / "run.json")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server(start, trained, image, number, code):
    server = start(trained.run)
    assert set(server.address) == {"url", "token"}
    assert server.address["url"].endswith(f"/?token={server.address['token']}")
    assert server.predict(image)[0] == 200
    found, messages = server.end(number)
    assert found == code
    assert "Requests in progress were answered" in messages
    assert "Traceback" not in messages


def test_requests_that_were_taken_are_answered_when_the_server_stops(start, trained, image):
    server = start(trained.run)
    server.predict(image)
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + image + b"\r\n"
    body = part * 60
    connections = [server.connect() for _ in range(4)]
    for connection in connections:
        headers = server.headers | {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", "/v1/predict", body + b"--b--\r\n", headers)
    time.sleep(0.3)  # for the server to take them
    server.process.send_signal(signal.SIGTERM)
    for connection in connections:
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["predictions"]) == 60
        connection.close()
    assert server.process.wait(timeout=30) == 143


def test_neither_start_nor_requests_import_torch(start, trained, image):
    server = start(trained.run)
    assert server.predict(image, "?sets=0.9&top=2&target_precision=0.6")[0] == 200
    server.process.stdin.write(b"\n")
    server.process.stdin.flush()
    line = server.process.stderr.readline()
    while not line.startswith(b"HEAVY"):
        line = server.process.stderr.readline()
    assert line == b"HEAVY []\n"


def test_hangup_loads_a_changed_run_and_fails_no_request(start, own_run, image):
    server = start(own_run)
    before = server.predict(image)[1]["predictions"][0]["confidence"]
    change(own_run, temperature=9.0)
    assert server.predict(image)[1]["predictions"][0]["confidence"] == before, "not before SIGHUP"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.predict, image) for _ in range(100)]
        server.process.send_signal(signal.SIGHUP)
        found = [future.result() for future in asked]
    assert {status for status, _ in found} == {200}
    for _ in range(100):
        after = server.predict(image)[1]["predictions"][0]["confidence"]
        if after != before:
            break
        time.sleep(0.1)
    assert after < before
    assert {answer["predictions"][0]["confidence"] for _, answer in found} <= {before, after}
    code, messages = server.end()
    assert code == 143
    assert "was reloaded" in messages


def test_hangup_keeps_the_run_if_the_new_one_is_damaged(start, own_run, image):
    server = start(own_run)
    before = server.predict(image)
    (own_run / "model.onnx").write_bytes(b"damaged")
    server.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert server.predict(image) == before
    own_run.rename(own_run.with_name("elsewhere"))
    server.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert server.predict(image) == before
    _, messages = server.end()
    assert "the previous version is still served" in messages
    assert "checksum" in messages
    assert "is not a directory" in messages


def test_a_taken_port_is_an_error_of_the_environment(trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "tlcli", "serve", str(trained.run), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 5
    assert f"port {port}".encode() in done.stderr
    assert done.stdout == b""


def test_not_a_run_is_an_invalid_artifact(tmp_path):
    command = [sys.executable, "-m", "tlcli", "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 4
    assert b"run.json" in done.stderr
    assert done.stdout == b""

"""Attacks on the server of `tlcli serve`: damaged files, malformed forms, and slow or half-closed connections.

Each gets a status of the client's errors with a reason, or no answer; the server keeps answering others.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from damaged_files import KINDS, damaged
from served_runs import BOUNDARY, form, serve_run

from tlcli.web import server
from tlcli.web.serve.uploads import MAX_BODY

DAMAGED = 700
"""Damaged files of each kind."""


@pytest.fixture(scope="module")
def client(trained):
    with serve_run(trained.run) as opened:
        yield opened


@pytest.fixture
def good(photos):
    return (photos / "disc" / "01.jpg").read_bytes()


@pytest.fixture(autouse=True)
def _still_answers(client, good):
    yield
    assert client.predict(good)[0] == 200


def send_raw(client, data, *, close=False):
    """Send bytes; return the status of the answer, or None if the connection was closed without one."""
    with socket.create_connection((client.host, client.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            if close:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in answer and (part := connection.recv(4096)):
                answer += part
    return int(answer.split()[1]) if answer else None


def head(client, *lines):
    first = f"POST /v1/predict?token={client.token} HTTP/1.1\r\nHost: localhost\r\n"
    return (first + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def check_damaged(client, kind, number, count):
    """Send damaged files in forms of twenty, and one in ten alone."""
    draw = random.Random(f"{kind} {number}")
    files = [damaged(KINDS[kind], draw, at) for at in range(count)]
    for start in range(0, count, 20):
        some = files[start : start + 20]
        status, found = client.predict_form([(f"{at}", content) for at, content in enumerate(some)])
        assert status in {200, 422}, found
        assert [row["path"] for row in found["predictions"]] == [str(at) for at in range(len(some))]
        assert all(row["label"] or row["error"] for row in found["predictions"])
    for content in files[::10]:
        status, found = client.predict(content)
        assert status == (422 if found["predictions"][0]["error"] else 200)
        if status == 422:
            assert found["predictions"][0]["error"] in found["error"]["message"]


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_damaged_files_get_a_row_or_a_reason(client, kind):
    check_damaged(client, kind, 0, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_get_a_row_or_a_reason(client, kind):
    check_damaged(client, kind, 1, DAMAGED)


def test_bombs_are_refused(client, largest):
    pixels = zlib.compress(bytes(2**24), 9)

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    huge = (60_000).to_bytes(4, "big")
    header = chunk(b"IHDR", huge + huge + bytes([8, 2, 0, 0, 0]))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    for content in (bomb, gzip.compress(bytes(2**24)), b"PK\x03\x04" + zlib.compress(bytes(2**24))):
        status, found = client.predict_form([("a.jpg", content)] * 2)
        assert status == 422
        assert found["error"]["message"]
    assert client.predict(largest.read_bytes())[0] in {200, 422}


def test_random_forms_are_refused_with_a_reason(client, good):
    draw = random.Random(0)
    whole = form([("a.jpg", good[:200]), ("b.jpg", b"x")])
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    for number in range(150):
        status, found = client.predict(damaged(whole, draw, 2 * number + 1), **{"Content-Type": kind})
        assert status in {400, 422}, found
        assert found["error"]["message"]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=" + "x" * 5000,
        "multipart/form-data; boundary=\u00e9; charset=nothing",
        'multipart/form-data; boundary="',
        "multipart/form-data;;;;==;" + ";" * 1000,
        "multipart/form-data; boundary=b; charset=utf-16",
        "multipart/form-data; boundary*=utf-8''%00",
        "application/x-www-form-urlencoded",
        "application/json",
        "text/html; charset=\u00ff",
    ],
)
def test_odd_content_types_are_refused_with_a_reason(client, kind):
    status, found = client.predict(b"--b\r\n\r\n", **{"Content-Type": kind.encode("latin1")})
    assert status in {400, 422}
    assert found["error"]["message"]


def test_parts_with_huge_or_many_headers_are_refused(client):
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    start = f"--{BOUNDARY}\r\n"
    for part in ("X: " + "a" * 2**20, "\r\n".join(f"x{number}: y" for number in range(50_000))):
        body = (start + part + "\r\n\r\nx\r\n" + f"--{BOUNDARY}--\r\n").encode()
        assert client.predict(body, **{"Content-Type": kind})[0] == 400


def test_a_form_full_of_line_ends_is_answered_soon(client):
    body = form([("a", b"\r\n" * (2**22)), ("b", b"\r" * 2**22)])
    assert client.predict(body, **{"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})[0] == 422


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: -1"],
        ["Content-Length: 1e3"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Transfer-Encoding: gzip"],
        ["Content-Length: 5", "Transfer-Encoding: chunked, identity"],
        ["X: " + "a" * 100_000],
        [f"X{number}: a" for number in range(20_000)],
        [f"Content-Length: {MAX_BODY + 1}"],
    ],
    ids=lambda lines: lines[0][:30],
)
def test_wrong_lengths_and_huge_headers_are_refused(client, lines):
    assert send_raw(client, head(client, *lines) + b"hello") in {None, 400, 413, 431, 501}


def test_chunks_of_wrong_lengths_are_refused(client):
    for body in (b"zz\r\nhello\r\n", b"5\r\nhel\r\n0\r\n\r\n", b"-5\r\nhello\r\n", b"ffffffffffffffffff\r\nhello"):
        assert send_raw(client, head(client, "Transfer-Encoding: chunked") + body, close=True) in {None, 400}


def test_half_closed_and_broken_connections_hold_nothing(client, good):
    for at in (0, 10, len(good) // 2, len(good)):
        data = head(client, f"Content-Length: {len(good)}") + good[:at]
        assert send_raw(client, data, close=True) == (200 if at == len(good) else None)
        with socket.create_connection((client.host, client.port), timeout=30) as connection:
            connection.sendall(data)
    for _ in range(100):
        if b"tlcli_images_in_progress 0" in client.request("GET", "/metrics")[2]:
            return
        threading.Event().wait(0.1)
    raise AssertionError("images are still in progress")


def test_slow_bodies_are_given_up(trained, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr("tlcli.web.serve.uploads.BODY_SECONDS", 0.5)
    with serve_run(trained.run, workers=1) as client:
        assert send_raw(client, head(client, "Content-Length: 100") + b"x") == 408
        kind = "Content-Type: multipart/form-data; boundary=b"
        assert send_raw(client, head(client, "Content-Length: 100", kind) + b"--b\r\nContent-Disp") == 408
        assert send_raw(client, head(client, "Content-Length: 100")[:60]) is None


def test_hundreds_of_slow_uploads_do_not_lock_anybody_out(client, good):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.create_connection((client.host, client.port), timeout=30))
            connection.sendall(head(client, f"Content-Length: {len(good)}") + good[:10])
        with ThreadPoolExecutor(8) as pool:
            assert {status for status, _ in pool.map(client.predict, [good] * 40)} == {200}


def test_no_answer_shows_the_token_or_a_traceback(client):
    for query, kind in (("?top=x", "image/png"), ("", "multipart/form-data")):
        headers = {"Authorization": f"Bearer {client.token}", "Content-Type": kind}
        status, _, content = client.request("POST", f"/v1/predict{query}", b"x", headers)
        assert status == 400
        assert client.token.encode() not in content
        assert b"Traceback" not in content
        assert set(json.loads(content)["error"]) == {"kind", "message", "path"}

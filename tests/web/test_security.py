"""Attacks on the server of `tlcli label`: other sites, wrong tokens, paths, and huge, slow, or many requests."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time

import pytest

from tlcli.web import server
from tlcli.web.security import MAX_BODY

ADDRESSES = ["/", "/assets/label.css", "/api/state", "/api/batch?size=1", "/api/labels", "/image/0"]


@pytest.fixture(scope="module")
def client(photos, labeling, tmp_path_factory):
    out = tmp_path_factory.mktemp("attacked") / "labels.csv"
    with labeling(photos, out, classes=("a", "b")) as opened:
        yield opened
    assert not out.exists(), "no attack left a label"


def own(client, **headers):
    return {"Authorization": f"Bearer {client.token}"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }


@pytest.mark.parametrize("path", ADDRESSES)
def test_every_address_needs_the_token(client, path):
    rest = "&" if "?" in path else "?"
    for headers, query in (
        ({}, ""),
        ({"Authorization": "Bearer "}, ""),
        ({"Authorization": "Bearer " + client.token[:-1]}, ""),
        ({"Authorization": "Basic " + client.token}, ""),
        ({"Authorization": "Bearer é"}, ""),
        ({}, f"{rest}token="),
        ({}, f"{rest}token={client.token}x"),
        ({"Cookie": f"token={client.token}"}, ""),
    ):
        assert client.request("GET", path + query, headers={k: v.encode() for k, v in headers.items()})[0] == 401
    assert client.request("GET", path)[0] == 200
    assert client.request("GET", f"{path}{rest}token={client.token}", headers={})[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "", "a@127.0.0.1", "[::1"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(client, host):
    headers = own(client, Host=host.format(port=client.port))
    assert client.request("GET", "/api/state", headers=headers)[0] in {400, 403}


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:1", "LOCALHOST"])
def test_own_names_with_any_port_are_allowed(client, host):
    """A tunnel has another port."""
    assert client.request("GET", "/api/state", headers=own(client, Host=host))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_requests_from_other_sites_are_refused(client, origin):
    headers = own(client, Origin=origin.format(port=client.port))
    for method, path in (("GET", "/api/state"), ("POST", "/api/undo")):
        assert client.request(method, path, {} if method == "POST" else None, headers=headers)[0] == 403


def test_its_own_page_is_allowed(client):
    headers = own(client, Origin=f"http://{client.host}:{client.port}")
    assert client.request("POST", "/api/undo", {}, headers=headers)[0] == 200


def test_a_form_of_another_site_cannot_post(client):
    headers = own(client, Content_Type="text/plain")
    assert client.request("POST", "/api/classes", '{"add": "x"}', headers=headers)[0] == 400
    assert [one["name"] for one in client.get("/api/state")["classes"]] == ["a", "b"]


@pytest.mark.parametrize("path", ADDRESSES)
def test_responses_forbid_what_the_page_does_not_need(client, path):
    for headers in (None, {}):
        _, found, _ = client.request("GET", path, headers=headers)
        assert "default-src 'none'" in found["content-security-policy"]
        assert "frame-ancestors 'none'" in found["content-security-policy"]
        assert found["x-content-type-options"] == "nosniff"
        assert found["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in found
        assert "server" not in found


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e/%2e%2e/label/app.py",
        "/assets/label.html",
        "/assets/",
        "/assets/label.css%00",
        "/image/../../etc/passwd",
        "/image/%2fetc%2fpasswd",
        "/image/-1",
        "/image/0/..",
        "/image/99999999999999999999",
        "//etc/passwd",
        "/etc/passwd",
        "/api",
        "/openapi.json",
    ],
)
def test_only_the_files_of_the_page_and_numbered_images_are_served(client, path):
    status, _, content = client.request("GET", path)
    assert status == 404
    assert b"root:" not in content
    assert b"import" not in content


def test_huge_bodies_are_refused_without_being_read(client):
    status, _, _ = client.request("POST", "/api/labels", headers=own(client, Content_Length=str(10**12)))
    assert status == 413
    with socket.create_connection((client.host, client.port), timeout=20) as connection:
        head = (
            f"POST /api/labels?token={client.token} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 20 * MAX_BODY:
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        with contextlib.suppress(ConnectionError):
            assert b"413" in connection.recv(4096)
    assert sent < 20 * MAX_BODY
    assert client.get("/api/state")["labelled"] == 0


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1\r\nX: " + "a" * 200_000, "GET /" + "a" * 200_000, "\x16\x03\x01\x00", "GET\r\n\r\n"]
)
def test_malformed_and_endless_heads_are_refused(client, head):
    with (
        socket.create_connection((client.host, client.port), timeout=20) as connection,
        contextlib.suppress(OSError),  # it may be closed before everything is sent
    ):
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
        assert answer == b"" or answer.split()[1] in {b"400", b"431"}
    assert client.get("/api/state")


def test_many_silent_connections_do_not_lock_anybody_out(client, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(socket.create_connection((client.host, client.port), timeout=20))
            if number % 2:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: local")  # and never the rest
        started = time.monotonic()
        assert client.get("/api/state")["images"]
        assert time.monotonic() - started < 10


def test_slow_clients_are_disconnected(photos, labeling, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr("tlcli.web.label.app.BODY_SECONDS", 0.5)
    with labeling(photos, tmp_path / "labels.csv") as client:
        with socket.create_connection((client.host, client.port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert connection.recv(10) == b""
        with socket.create_connection((client.host, client.port), timeout=20) as connection:
            connection.sendall(f"GET /api/state?token={client.token} HTTP/1.1\r\nHost: localhost\r\n\r\nGET /".encode())
            assert b"200 OK" in connection.recv(100)
            while connection.recv(10_000):
                pass  # until it is closed, although the second request never ends
        with socket.create_connection((client.host, client.port), timeout=20) as connection:
            head = f"POST /api/undo?token={client.token} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{"
            connection.sendall(head.encode())
            assert b"408" in connection.recv(4096)


def test_errors_do_not_show_the_token_or_a_traceback(client):
    _, _, content = client.request("POST", "/api/labels", "[")
    assert client.token.encode() not in content
    assert b"Traceback" not in content
    assert set(json.loads(content)["error"]) == {"kind", "message", "path"}


def test_tokens_are_different_and_long(photos, labeling, tmp_path):
    tokens = set()
    for number in range(2):
        with labeling(photos, tmp_path / f"labels{number}.csv") as client:
            tokens.add(client.token)
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32

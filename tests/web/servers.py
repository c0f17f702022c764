"""A server in a thread, and a client for it."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit


class Client:
    """Sends requests to a server."""

    def __init__(self, address):
        self.url, self.token = address.url, address.token
        self.host, self.port = urlsplit(address.url).hostname, urlsplit(address.url).port

    def request(self, method, path, body=None, headers=None):
        """Return status, headers, and content of a response."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        sent = {"Authorization": f"Bearer {self.token}"} if headers is None else headers
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        if isinstance(body, (dict, list)):
            sent = {"Content-Type": "application/json", **sent}
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), content

    def get(self, path):
        status, _, content = self.request("GET", path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path, body):
        status, _, content = self.request("POST", path, body)
        assert status == 200, content
        return json.loads(content)


@contextmanager
def in_thread(command):
    """Call `command(announce=..., stop=...)` in a thread, and yield the address; leaving the block stops the server."""
    started, stop, failures = threading.Event(), threading.Event(), []
    addresses = []

    def announce(address):
        addresses.append(address)
        started.set()

    def run():
        try:
            command(announce=announce, stop=stop)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failures.append(error)
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)
    if failures:
        thread.join()
        raise failures[0]
    try:
        yield addresses[0]
    finally:
        stop.set()
        thread.join(30)
    if failures:
        raise failures[0]

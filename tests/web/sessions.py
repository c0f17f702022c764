"""A labeling session that listens, and a client for it."""

from __future__ import annotations

import csv
import http.client
import json
import shutil
import threading
import time
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from tlcli.commands.label import label
from tlcli.settings import CacheSettings, ComputeSettings, LabelSettings, NetworkSettings

SMALL = NetworkSettings(size=64)


def flat_copy(photos, folder):
    """Copy the images of class folders into one folder, with their classes in their names."""
    folder.mkdir()
    for path in sorted(photos.rglob("*.*")):
        if path.is_file():
            shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return folder


class Client:
    """Sends requests to a session."""

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

    def batch(self, size, **query):
        rest = "".join(f"&{name}={quote(str(value))}" for name, value in query.items())
        return self.get(f"/api/batch?size={size}{rest}")["images"]

    def give(self, labels):
        return self.post("/api/labels", {"labels": [{"id": image, "label": name} for image, name in labels.items()]})

    def featurized(self, images):
        """Wait until the features of so many images are computed."""
        for _ in range(600):
            state = self.get("/api/state")
            if state["featurized"] + state["failed"] >= images:
                return state
            time.sleep(0.1)
        raise AssertionError(state)


@contextmanager
def serve_labels(source, out, *, cache, report=None, network=SMALL, **settings):
    """Serve a session with `with serve_labels(...) as client`; leaving it stops the server."""
    started, stop, failures = threading.Event(), threading.Event(), []
    addresses = []

    def announce(address):
        addresses.append(address)
        started.set()

    def run():
        try:
            label(
                LabelSettings(
                    source=str(source),
                    out=out,
                    browser=False,
                    network=network,
                    compute=ComputeSettings(device="cpu", workers=1, engine="torch"),
                    cache=CacheSettings(directory=cache),
                    **settings,
                ),
                report,
                announce=announce,
                stop=stop,
            )
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
        yield Client(addresses[0])
    finally:
        stop.set()
        thread.join(30)
    if failures:
        raise failures[0]


def truth(image):
    """Return the class of an image of `flat_copy`, by its name."""
    return image["path"].rpartition("/")[2].partition("-")[0]


def rows(out):
    """Return the rows of a table of labels."""
    with out.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))

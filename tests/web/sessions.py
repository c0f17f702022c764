"""A labeling session that listens, and a client for it."""

from __future__ import annotations

import csv
import functools
import shutil
import time
from contextlib import contextmanager
from urllib.parse import quote

import servers

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


class Client(servers.Client):
    """Sends requests to a session."""

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
    chosen = LabelSettings(
        source=str(source),
        out=out,
        browser=False,
        network=network,
        compute=ComputeSettings(device="cpu", workers=1, engine="torch"),
        cache=CacheSettings(directory=cache),
        **settings,
    )
    with servers.in_thread(functools.partial(label, chosen, report)) as address:
        yield Client(address)


def truth(image):
    """Return the class of an image of `flat_copy`, by its name."""
    return image["path"].rpartition("/")[2].partition("-")[0]


def rows(out):
    """Return the rows of a table of labels."""
    with out.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))

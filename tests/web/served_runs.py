"""A run that is served, and a client for it."""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager

import servers

from tlcli.commands.serve import serve
from tlcli.settings import ServeSettings

BOUNDARY = "----tlcli"


class Client(servers.Client):
    """Sends images to a server."""

    def predict(self, content, query="", **headers):
        """Send a raw body; return the status and the response."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "image/jpeg"} | headers
        status, _, answer = self.request("POST", f"/v1/predict{query}", content, sent)
        return status, json.loads(answer)

    def predict_form(self, parts, query=""):
        """Send a multipart body; return the status and the response."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.predict(form(parts), query, **{"Content-Type": kind})


def form(parts):
    """Return a multipart body. `parts` are pairs of filename and content."""
    head = '--{}\r\nContent-Disposition: form-data; name="image"; filename="{}"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"".join(head.format(BOUNDARY, name).encode() + content + b"\r\n" for name, content in parts)
    return body + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def serve_run(run, report=None, **settings):
    """Serve a run with `with serve_run(run) as client`; leaving it stops the server."""
    chosen = ServeSettings(run=run, **{"port": 0, "workers": 2} | settings)
    with servers.in_thread(functools.partial(serve, chosen, report)) as address:
        yield Client(address)

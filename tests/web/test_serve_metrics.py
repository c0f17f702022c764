"""What the server tells about itself: metrics, the description of its interface, and its pages."""

from __future__ import annotations

import json
import re

import pytest
from served_runs import serve_run

from tlcli.web.serve.metrics import Metrics
from tlcli.web.serve.openapi import PARAMETERS
from tlcli.web.serve.query import CONVERTERS, REPEATED

SAMPLE = re.compile(r'^[a-z_]+(?:\{(?:[a-z0-9_]+="(?:[^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+$')
PAGES = ["/", "/docs"]


@pytest.fixture(scope="module")
def client(trained):
    with serve_run(trained.run) as opened:
        yield opened


def samples(client):
    """Return the metrics by name with labels; check the format."""
    status, headers, content = client.request("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = content.decode().splitlines()
    assert [line for line in lines if not line.startswith("#") and not SAMPLE.match(line)] == []
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics_count_requests_images_and_labels(client, photos, draw, tmp_path):
    before = samples(client)
    good = (photos / "disc" / "01.jpg").read_bytes()
    unknown = draw(tmp_path / "noise.png", seed=3, size=(90, 90)).read_bytes()
    label = client.predict(good)[1]["predictions"][0]["label"]
    client.predict_form([("a", good), ("b", unknown), ("c", b"nothing")], "?unknown_rate=0.99")
    client.predict(b"nothing")
    client.request("GET", "/nowhere?x=y")
    client.request("GET", "/healthz", headers={"Host": "evil.example"})
    after = samples(client)

    def added(name):
        return after.get(name, 0) - before.get(name, 0)

    assert added('tlcli_requests_total{path="/v1/predict",status="200"}') == 2
    assert added('tlcli_requests_total{path="/v1/predict",status="422"}') == 1
    assert added('tlcli_requests_total{path="other",status="404"}') == 1
    assert added('tlcli_requests_total{path="/healthz",status="403"}') == 1
    assert added("tlcli_request_seconds_count") == 3
    assert added('tlcli_request_seconds_bucket{le="+Inf"}') == 3
    assert added('tlcli_images_total{status="failed"}') == 2
    assert added(f'tlcli_labels_total{{label="{label}"}}') >= 2
    assert 0 < after["tlcli_unknown_ratio"] <= 1
    assert after["tlcli_images_in_progress"] == 0
    buckets = [value for name, value in after.items() if "_bucket" in name]
    assert buckets == sorted(buckets), "cumulative"


def test_the_metrics_name_the_run(client, trained):
    digest = json.loads((trained.run / "run.json").read_text())["sha256"]
    assert samples(client)[f'tlcli_run_info{{run="run",sha256="{digest}"}}'] == 1


def test_the_description_has_every_parameter_and_key(client, photos):
    found = client.get("/openapi.json")
    assert found["openapi"].startswith("3.")
    assert PARAMETERS.keys() == {*CONVERTERS, REPEATED}
    operation = found["paths"]["/v1/predict"]["post"]
    assert {one["name"] for one in operation["parameters"]} == PARAMETERS.keys()
    row = client.predict((photos / "disc" / "01.jpg").read_bytes())[1]["predictions"][0]
    described = found["components"]["schemas"]["Row"]["properties"]
    assert list(described) == list(row)
    assert described["label"]["enum"] == ["disc", "square", "stripes", None]


@pytest.mark.parametrize("path", [*PAGES, "/metrics", "/openapi.json", "/assets/serve.js"])
def test_all_addresses_need_the_token(client, path):
    assert client.request("GET", path, headers={})[0] == 401
    assert client.request("GET", f"{path}?token={client.token}", headers={})[0] == 200


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_load_nothing_from_elsewhere(client, path):
    _, headers, content = client.request("GET", path)
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', content.decode())
    assert addresses
    for address in addresses:
        assert address.startswith("/")
        assert not address.startswith("//")
        assert client.request("GET", address, headers={})[0] == 200, "they carry the token"


def test_without_the_page_the_interface_remains(trained):
    with serve_run(trained.run, page=False) as client:
        assert client.request("GET", "/")[0] == 404
        assert client.request("GET", "/openapi.json")[0] == 200


def test_label_names_are_escaped():
    metrics = Metrics([])
    metrics.count_rows([{"label": 'a"b\\c\nd', "status": "ok"}])
    text = metrics.text(in_progress=0, run="x", digest="y")
    assert 'tlcli_labels_total{label="a\\"b\\\\c\\nd"} 1' in text.splitlines()

"""Predictions over HTTP: the same rows as `predict`, batches of many clients, limits, and replacement of the run."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from served_runs import form, serve_run

from tlcli.commands.predict import predict
from tlcli.errors import MachineError, UsageError
from tlcli.settings import ComputeSettings, PredictSettings, ServeSettings
from tlcli.storage.files import sealed, write_json
from tlcli.web.serve import batcher
from tlcli.web.serve.uploads import MAX_BODY, MAX_IMAGES


@pytest.fixture(scope="module")
def client(trained):
    with serve_run(trained.run) as opened:
        yield opened


@pytest.fixture(scope="module")
def inbox(photos, draw, tmp_path_factory):
    """Known images, two unknown ones, and a damaged one."""
    folder = tmp_path_factory.mktemp("inbox")
    for path in sorted(photos.rglob("*.jpg"))[::4]:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    draw(folder / "noise.png", seed=3, size=(90, 90))
    draw(folder / "wide.webp", seed=4, size=(200, 20))
    (folder / "broken.jpg").write_bytes((photos / "disc" / "00.jpg").read_bytes()[:900])
    return sorted(folder.iterdir())


def without_path(rows):
    return [{name: value for name, value in row.items() if name != "path"} for row in rows]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("?top=3&probabilities=true", {"top": 3, "probabilities": True}),
        ("?sets=0.9&min_confidence=0.8", {"sets": 0.9, "min_confidence": 0.8}),
        ("?unknown_rate=0.5&target_precision=0.6", {"unknown_rate": 0.5, "target_precision": ("0.6",)}),
        ("?target_precision=disc%3D0.7", {"target_precision": ("disc=0.7",)}),
    ],
)
def test_the_rows_are_those_of_predict(client, trained, inbox, query, options):
    expected = predict(PredictSettings(run=trained.run, inputs=tuple(map(str, inbox)), **options)).rows
    status, found = client.predict_form([(path.name, path.read_bytes()) for path in inbox], query)
    assert status == 200
    assert without_path(found["predictions"]) == without_path(expected)
    assert [list(row) for row in found["predictions"]] == [list(row) for row in expected], "the order of the columns"
    assert [row["path"] for row in found["predictions"]] == [path.name for path in inbox]
    for path, row in zip(inbox, without_path(expected), strict=True):
        status, found = client.predict(path.read_bytes(), query)
        assert without_path(found["predictions"]) == [row]
        assert status == (422 if row["error"] else 200)


def test_a_run_without_an_onnx_file_is_served_by_torch(trained, inbox, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    (run / "model.onnx").unlink()
    del info["files"]["model.onnx"]
    write_json(run / "run.json", sealed(info))
    compute = ComputeSettings(device="cpu")
    expected = predict(PredictSettings(run=run, inputs=tuple(map(str, inbox)), compute=compute)).rows
    with serve_run(run) as client:
        status, found = client.predict_form([(path.name, path.read_bytes()) for path in inbox])
        assert status == 200
        assert without_path(found["predictions"]) == without_path(expected)


def test_files_of_the_run_that_changed_are_no_error_of_the_client(trained, photos, tmp_path, caplog):
    run = shutil.copytree(trained.run, tmp_path / "run")
    with serve_run(run) as client:
        (run / "predictions.parquet").write_bytes(b"damaged")
        content = (photos / "disc" / "01.jpg").read_bytes()
        status, found = client.predict(content, "?sets=0.9")
        assert status == 503
        assert "must reload it (SIGHUP)" in found["error"]["message"]
        assert str(run) not in found["error"]["message"]
        assert "checksum" in caplog.text, "the operator reads the reason"
        assert client.predict(content)[0] == 200


def test_requests_of_many_clients_get_their_own_rows(client, trained, inbox):
    expected = predict(PredictSettings(run=trained.run, inputs=tuple(map(str, inbox)))).rows

    def ask(number):
        content = inbox[number % len(inbox)].read_bytes()
        return without_path(client.predict(content)[1]["predictions"])[0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(10 * len(inbox))))
    assert found == without_path(expected) * 10


def test_an_unreadable_image_is_an_error_of_the_client_with_the_reason(client, photos):
    good = (photos / "disc" / "01.jpg").read_bytes()
    status, found = client.predict(b"PK\x03\x04" + bytes(30))
    assert status == 422
    assert "ZIP" in found["error"]["message"]
    assert found["predictions"][0]["status"] == "failed"
    status, found = client.predict_form([("a.jpg", b"nothing"), ("b.jpg", good)])
    assert status == 200
    assert [row["status"] for row in found["predictions"]] == ["failed", found["predictions"][1]["status"]]
    status, found = client.predict_form([("a.jpg", b"nothing"), ("b.jpg", b"")])
    assert status == 422
    assert "none of the 2 images" in found["error"]["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?top=0", "top is 0; expected at least 1"),
        ("?top=x", "top is 'x'; expected a whole number"),
        ("?min_confidence=2", "min_confidence is 2.0"),
        ("?min_confidence=nan", "min_confidence is nan"),
        ("?sets=1", "sets is 1; expected"),
        ("?target_precision=bird%3D0.9", "target_precision bird=0.9: no such class"),
        ("?probabilities=perhaps", "expected true or false"),
        ("?top=1&top=2", "given twice"),
        ("?color=red", "no parameter 'color'"),
    ],
)
def test_a_wrong_query_is_explained_with_its_own_names(client, photos, query, message):
    status, found = client.predict((photos / "disc" / "01.jpg").read_bytes(), query)
    assert status == 400
    assert message in found["error"]["message"]
    assert "--" not in found["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("image/png", b"", "the body is empty"),
        ("multipart/form-data", b"x", "Missing boundary"),
        ("multipart/form-data; boundary=b", b"", "no images"),
        ("multipart/form-data; boundary=b", b"nothing of the kind", "malformed"),
        ("multipart/form-data; boundary=----tlcli", form([("a.jpg", b"1"), ("b.jpg", b"2")])[:-14], "last boundary"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", "malformed"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
            "without a filename",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n',
            "a part 'file'",
        ),
    ],
)
def test_a_malformed_body_is_explained(client, kind, body, message):
    status, found = client.predict(body, **{"Content-Type": kind})
    assert status == 400
    assert message in found["error"]["message"]


def test_a_form_has_a_limited_number_of_images(client):
    status, found = client.predict_form([("x", b"x")] * (MAX_IMAGES + 1))
    assert status == 400
    assert f"more than {MAX_IMAGES} images" in found["error"]["message"]
    assert client.predict_form([("x", b"x")] * MAX_IMAGES)[0] == 422


def test_compressed_and_huge_bodies_are_refused(client):
    assert client.predict(b"x", **{"Content-Encoding": "gzip"})[0] == 415
    assert client.predict(bytes(MAX_BODY + 1))[0] == 413
    assert client.predict(bytes(MAX_BODY))[0] == 422


def test_a_full_queue_answers_503_and_recovers(client, photos, monkeypatch):
    content = (photos / "disc" / "01.jpg").read_bytes()
    monkeypatch.setattr(batcher, "MAX_IN_PROGRESS", 2)
    assert client.predict_form([("a", content)] * 2)[0] == 200
    headers = {"Authorization": f"Bearer {client.token}"}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: client.request("POST", "/v1/predict", content, headers), range(64)))
    assert {status for status, _, _ in found} == {200, 503}
    assert {sent.get("retry-after") for status, sent, _ in found if status == 503} == {"1"}
    assert client.predict(content)[0] == 200


def test_a_slow_answer_is_given_up(client, photos, monkeypatch):
    monkeypatch.setattr("tlcli.web.serve.app.ANSWER_SECONDS", 0.0)
    status, found = client.predict((photos / "disc" / "01.jpg").read_bytes())
    assert (status, found["error"]["kind"]) == (503, "busy")
    monkeypatch.undo()
    assert client.predict((photos / "disc" / "01.jpg").read_bytes())[0] == 200


def test_the_held_bytes_of_all_requests_are_limited(client, monkeypatch):
    monkeypatch.setattr("tlcli.web.serve.uploads.MAX_HELD", 10_000)
    assert client.predict(bytes(20_000))[0] == 503
    assert client.predict(bytes(9_000))[0] == 422, "the refused request holds nothing any more"


def test_a_decoder_that_does_not_start_is_no_error_of_the_client(trained, photos, monkeypatch):
    def fail(*_):
        raise MachineError("a decoder process did not start")

    content = (photos / "disc" / "01.jpg").read_bytes()
    with serve_run(trained.run, workers=1) as client:
        assert client.predict(content)[0] == 200
        with monkeypatch.context() as patch:
            patch.setattr("tlcli.images.loader._DecoderProcess.request", fail)
            status, found = client.predict(content)
        assert status == 503
        assert "cannot predict now" in found["error"]["message"]
        assert client.predict(content)[0] == 200


def test_health_needs_no_token_and_tells_nothing_else(client):
    status, _, content = client.request("GET", "/healthz", headers={})
    assert (status, json.loads(content)) == (200, {"status": "ok"})


def test_the_token_is_that_of_the_command_line_or_none(trained, photos):
    content = (photos / "disc" / "01.jpg").read_bytes()
    with serve_run(trained.run, token="a-token-that-is-long") as client:
        assert client.url.endswith("/?token=a-token-that-is-long")
        assert client.predict(content)[0] == 200
        assert client.request("POST", "/v1/predict", content, {})[0] == 401
    with serve_run(trained.run, open=True) as client:
        assert client.token is None
        assert client.url.endswith("/")
        assert client.request("POST", "/v1/predict", content, {})[0] == 200
        assert client.request("POST", "/v1/predict", content, {"Origin": "http://evil.example"})[0] == 403
        assert client.request("POST", "/v1/predict", content, {"Host": "evil.example"})[0] == 403


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": "short"}, "--token has 5 characters"),
        ({"token": "with spaces and more"}, "--token has 20 characters"),
        ({"token": "a" * 20, "open": True}, "cannot be combined"),
        ({"port": 65536}, "--port is 65536"),
        ({"workers": 0}, "--workers is 0"),
        ({"device": "tpu"}, "--device is 'tpu'"),
    ],
)
def test_wrong_settings_are_usage_errors(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        ServeSettings(run=tmp_path, **settings)


def test_without_a_token_on_the_network_there_is_a_warning(trained, report):
    with serve_run(trained.run, report, open=True, host="0.0.0.0"):
        pass
    assert "anybody on the network" in report.warnings[0]


def test_a_failure_of_the_network_is_an_error_of_the_server_and_nothing_hangs(trained, photos, monkeypatch):
    content = (photos / "disc" / "01.jpg").read_bytes()
    with serve_run(trained.run) as client:
        monkeypatch.setattr("tlcli.inference.model.ExportedModel.run", lambda *_: 1 / 0)
        assert client.request("POST", "/v1/predict", content)[0] == 500
        monkeypatch.undo()
        assert client.predict(content)[0] == 200
        monkeypatch.setattr("tlcli.inference.predictor.Predictor.predictions", lambda *_: 1 / 0)
        assert client.request("POST", "/v1/predict", content)[0] == 500
        monkeypatch.undo()
        assert client.predict(content)[0] == 200

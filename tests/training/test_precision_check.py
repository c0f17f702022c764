"""OpenVINO computes features in bf16 only if the head then predicts the same labels as in fp32."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.engines import choice, opening
from tlcli.engines.onnx_session import OnnxSession
from tlcli.engines.openvino_session import OpenVinoSession, bf16_obstacle
from tlcli.errors import UsageError
from tlcli.features.listing import list_caches
from tlcli.inference import model
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, PredictSettings
from tlcli.training.precision_check import PrecisionCheck, compare_logits


def figures(agreement, accuracy, exact, error=0.02):
    return PrecisionCheck(images=200, agreement=agreement, accuracy=accuracy, accuracy_fp32=exact, standard_error=error)


def test_figures_are_those_of_the_labels():
    exact = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    reduced = exact.copy()
    reduced[0] = exact[1]
    check = compare_logits(reduced, exact, np.array([0, 1, 2, 3, 0, 1, 2, 3, 3, 3]))
    assert (check.images, check.agreement, check.accuracy, check.accuracy_fp32) == (10, 0.9, 0.7, 0.8)
    assert check.standard_error == pytest.approx((0.8 * 0.2 / 10) ** 0.5)


@pytest.mark.parametrize("accuracy", [0.891, 0.9, 0.909])
def test_equal_predictions_are_accepted(accuracy):
    figures(0.99, accuracy, 0.9).require_agreement()


@pytest.mark.parametrize(("agreement", "accuracy"), [(0.985, 0.9), (0.995, 0.885), (0.995, 0.915), (0.5, 0.4)])
def test_other_predictions_are_refused_with_the_figures(agreement, accuracy):
    message = (
        f"{100 * agreement:.1f} % of labels agree with fp32 on 200 held-out images (expected at least 99 %), with an "
        f"accuracy of {100 * accuracy:.1f} % instead of 90.0 % (expected within 1.0 points). Use --precision fp32."
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        figures(agreement, accuracy, 0.9).require_agreement()


class Rounding(OnnxSession):
    """Stands in for OpenVINO: rounds features to bf16."""

    engine = "openvino"

    def __init__(self, content, precision="fp32"):
        super().__init__(content)
        self.precision = precision

    def outputs(self, pixels):
        values = super().outputs(pixels)
        return [self.reduce(value) for value in values] if self.precision == "bf16" else values

    def reduce(self, values):
        return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


class Reversing(Rounding):
    """A defect that a head fitted on these features does not notice."""

    def reduce(self, values):
        return np.ascontiguousarray(values[:, ::-1])


@pytest.fixture
def train(photos, tmp_path, monkeypatch):
    """Train with a stand-in for OpenVINO in bf16, with other settings if any."""

    def run(session, **settings):
        monkeypatch.setattr(choice, "check_bf16", lambda: None)
        monkeypatch.setattr(opening, "OpenVinoSession", session)
        return finetune(
            FinetuneSettings(
                data=photos,
                out=tmp_path / "run",
                network=NetworkSettings(size=64),
                compute=ComputeSettings(engine="openvino", precision="bf16", workers=1),
                cache=CacheSettings(directory=tmp_path / "cache"),
                **settings,
            )
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"validation_fraction": 0.4, "refit": True}], ids=["folds", "validation"])
def test_a_head_that_predicts_otherwise_in_fp32_is_refused_and_nothing_is_written(train, tmp_path, settings):
    with pytest.raises(UsageError, match=r"% of labels agree with fp32 on \d+ held-out images .* Use --precision fp32"):
        train(Reversing, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"validation_fraction": 0.4, "refit": True}], ids=["folds", "validation"])
def test_a_run_in_bf16_records_the_figures(train, tmp_path, settings, monkeypatch):
    info = train(Rounding, **settings)
    check = info["precision_check"]
    held_out = info["validation"]["images"]
    assert (check["images"], check["agreement"]) == (held_out, 1.0)
    assert check["accuracy"] == check["accuracy_fp32"] == info["validation"]["accuracy"]
    assert (info["precision"], info["engine"]) == ("bf16", "openvino")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["precision_check"] == check
    images = {cache.images for cache in list_caches(tmp_path / "cache")}
    assert images == {45, held_out}, "features of all images in bf16, and of held-out images in fp32"


@pytest.mark.slow
def test_without_bf16_a_run_predicts_in_fp32_and_says_so(train, photos, tmp_path, monkeypatch, report):
    train(Rounding)
    settings = PredictSettings(run=tmp_path / "run", inputs=(str(photos),), compute=ComputeSettings(workers=1))
    opened = []

    class Recorded(Rounding):
        def __init__(self, content, precision="fp32"):
            super().__init__(content, precision)
            opened.append(precision)

    monkeypatch.setattr(model, "OpenVinoSession", Recorded)
    monkeypatch.setattr(model, "bf16_obstacle", lambda: None)
    reduced = predict(settings, report).rows
    assert opened == ["bf16"]
    assert not [note for note in report.notes if "fp32" in note]
    monkeypatch.setattr(model, "bf16_obstacle", lambda: "no such instructions")
    exact = predict(settings, report).rows
    (note,) = [note for note in report.notes if "fp32" in note]
    assert note.startswith("Engine    cpu, fp32, ONNX Runtime instead of OpenVINO in bf16")
    assert note.endswith("no such instructions")
    assert [row["label"] for row in exact] == [row["label"] for row in reduced]


@pytest.mark.slow
@pytest.mark.skipif(bf16_obstacle() is not None, reason="needs OpenVINO and a processor with instructions for bf16")
def test_a_run_in_bf16_predicts_the_probabilities_that_it_was_evaluated_with(train, tmp_path, monkeypatch, report):
    monkeypatch.setattr(PrecisionCheck, "require_agreement", lambda _: None)  # few small images
    info = train(OpenVinoSession, validation_fraction=0.4)
    assert info["precision_check"]["images"] == info["validation"]["images"]
    expected = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    inputs = tuple(row["path"] for row in expected)
    settings = PredictSettings(
        run=tmp_path / "run", inputs=inputs, probabilities=True, compute=ComputeSettings(workers=1)
    )
    rows = predict(settings, report).rows
    found = [[row[f"p:{name}"] for name in info["classes"]] for row in rows]
    np.testing.assert_allclose(found, [row["probabilities"] for row in expected], atol=1e-5)
    assert not report.notes

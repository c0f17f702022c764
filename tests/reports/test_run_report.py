"""The content of report.html. Its behavior is tested in tests/browser."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tlcli.commands.finetune import finetune
from tlcli.reports.run_report import select_images
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.training.classifier import Evaluation


def evaluation(confidences, right):
    rows = [
        {"label": "a", "predicted": "a" if good else "b", "confidence": confidence}
        for confidence, good in zip(confidences, right, strict=True)
    ]
    return Evaluation(metrics={}, rows=rows, images=list(range(len(rows))), logits=np.zeros((len(rows), 2)))


def content_of(page):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def small_run(photos, tmp_path_factory):
    """Settings of a run that takes about a second."""
    root = tmp_path_factory.mktemp("reported")
    return FinetuneSettings(
        data=photos,
        out=root / "run",
        network=NetworkSettings(backbone="lenet5", weights="none"),
        compute=ComputeSettings(workers=1),
        cache=CacheSettings(directory=root / "cache"),
    )


@pytest.fixture(scope="module")
def page(small_run):
    finetune(small_run)
    return (small_run.out / "report.html").read_text()


def test_all_images_are_shown_up_to_the_limit():
    assert select_images([evaluation([0.9, 0.8], [True, False]), evaluation([0.7], [True])], 3) == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]


def test_most_confident_errors_and_least_confident_correct_predictions_are_selected():
    generator = np.random.default_rng(0)
    evaluations = [
        evaluation(generator.random(400).tolist(), [number % 3 > 0 for number in range(400)]),
        evaluation(generator.random(50).tolist(), [True] * 50),
    ]
    shown = select_images(evaluations, 80)
    assert len(shown) == 80
    assert shown == sorted(set(shown))
    rows = [
        (evaluations[split].rows[row], (split, row))
        for split in range(2)
        for row in range(len(evaluations[split].rows))
    ]
    wrong = sorted((row["confidence"], pair) for row, pair in rows if row["label"] != row["predicted"])
    right = sorted((row["confidence"], pair) for row, pair in rows if row["label"] == row["predicted"])
    assert {pair for _, pair in wrong[-40:]} <= set(shown)
    assert {pair for _, pair in right[:10]} <= set(shown)


def test_few_errors_leave_room_for_correct_predictions():
    assert len(select_images([evaluation([0.5] * 100, [number > 1 for number in range(100)])], 40)) == 40


def test_the_page_matches_run_json(page, small_run):
    info = json.loads((small_run.out / "run.json").read_text())
    content = content_of(page)
    assert content["classes"] == info["classes"] == ["disc", "square", "stripes"]
    (split,) = content["splits"]
    assert split["confusion"] == info["validation"]["confusion"]
    assert (
        sum(row["images"] for row in split["reliability"]) == sum(row["images"] for row in split["uncalibrated"]) == 45
    )
    assert len(content["images"]) == 45
    counted = np.zeros((3, 3), int)
    for _, truth, predicted, x, y, path, top, novelty in content["images"]:
        counted[truth, predicted] += 1
        assert 0 <= x <= 1
        assert 0 <= y <= 1
        assert path.startswith(info["classes"][truth])
        assert top[0][0] == predicted
        assert 0 <= novelty <= 1
        assert sum(share for _, share in top) == pytest.approx(1, abs=1e-3)
    assert counted.tolist() == info["validation"]["confusion"]
    lines = [json.loads(line) for line in (small_run.out / "metrics.jsonl").read_text().splitlines()]
    assert {point["x"]: point["loss"] for point in content["curves"]["points"]} == {
        line["l2"]: line["loss"] for line in lines
    }


def test_the_page_loads_no_external_resources(page):
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "sourceMappingURL" not in page
    assert "@import" not in page
    assert page.count("data:image/webp;base64,") == 1
    sheet = re.search(r"data:image/webp;base64,([\w+/=]+)", page)[1]
    assert base64.b64decode(sheet).startswith(b"RIFF")


def test_scripts_have_at_most_1500_kilobytes(page):
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 2
    assert sum(map(len, scripts)) < 1_500_000


def test_the_cached_overview_is_reused_and_recreated_if_damaged(page, small_run, report, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the overview was drawn again")

    again = replace(small_run, overwrite=True)
    with monkeypatch.context() as patched:
        patched.setattr("tlcli.reports.run_report.draw_overview", fail)
        finetune(again, report)
    assert content_of((small_run.out / "report.html").read_text())["images"] == content_of(page)["images"]
    (cached,) = small_run.cache.root().glob("*/overview-*.safetensors")
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    finetune(again, report)
    assert any("overview" in warning and "recreating" in warning for warning in report.warnings)
    assert content_of((small_run.out / "report.html").read_text())["images"] == content_of(page)["images"]
    (recreated,) = small_run.cache.root().glob("*/overview-*.safetensors")
    assert recreated == cached


def test_different_images_get_a_new_overview(small_run, page, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "disc" / "00.jpg").unlink()
    finetune(replace(small_run, data=tmp_path / "photos", out=tmp_path / "run"))
    assert len(content_of((tmp_path / "run" / "report.html").read_text())["images"]) == 44
    assert len(list(small_run.cache.root().glob("*/overview-*.safetensors"))) == 2


def test_trained_layers_have_curves_and_a_map_of_logits(small_run, tmp_path):
    tail = replace(
        small_run,
        out=tmp_path / "run",
        network=replace(small_run.network, freeze="2"),
        training=TrainingSettings(epochs=2),
    )
    finetune(tail)
    text = (tmp_path / "run" / "report.html").read_text()
    content = content_of(text)
    assert content["curves"]["kind"] == "epochs"
    assert [point["x"] for point in content["curves"]["points"]] == [1, 2]
    assert all({"train", "loss", "accuracy"} <= set(point) for point in content["curves"]["points"])
    assert "t-SNE of the logits" in text
    assert "Depths tried" in text
    assert content["depths"] == [], "one depth is no comparison"

"""The content of report.html; tests/browser has what it does."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tlcli.commands.finetune import finetune
from tlcli.reports.run_report import choose
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
    """Settings of a run that takes a second."""
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


def test_all_are_shown_where_there_is_room():
    assert choose([evaluation([0.9, 0.8], [True, False]), evaluation([0.7], [True])], 3) == [(0, 0), (0, 1), (1, 0)]


def test_the_surest_mistakes_and_the_least_sure_hits_are_shown_first():
    generator = np.random.default_rng(0)
    parts = [
        evaluation(generator.random(400).tolist(), [number % 3 > 0 for number in range(400)]),
        evaluation(generator.random(50).tolist(), [True] * 50),
    ]
    shown = choose(parts, 80)
    assert len(shown) == 80
    assert shown == sorted(set(shown))
    rows = [(parts[part].rows[row], (part, row)) for part in range(2) for row in range(len(parts[part].rows))]
    wrong = sorted((row["confidence"], place) for row, place in rows if row["label"] != row["predicted"])
    right = sorted((row["confidence"], place) for row, place in rows if row["label"] == row["predicted"])
    assert {place for _, place in wrong[-40:]} <= set(shown)
    assert {place for _, place in right[:10]} <= set(shown)


def test_few_mistakes_leave_room_for_hits():
    assert len(choose([evaluation([0.5] * 100, [number > 1 for number in range(100)])], 40)) == 40


def test_what_the_page_shows_is_what_the_run_says(page, small_run):
    info = json.loads((small_run.out / "run.json").read_text())
    content = content_of(page)
    assert content["classes"] == info["classes"] == ["disc", "square", "stripes"]
    (part,) = content["parts"]
    assert part["confusion"] == info["validation"]["confusion"]
    assert sum(row["images"] for row in part["reliability"]) == sum(row["images"] for row in part["uncalibrated"]) == 45
    assert len(content["images"]) == 45
    counted = np.zeros((3, 3), int)
    for _, truth, said, x, y, path, likeliest in content["images"]:
        counted[truth, said] += 1
        assert 0 <= x <= 1
        assert 0 <= y <= 1
        assert path.startswith(info["classes"][truth])
        assert likeliest[0][0] == said
        assert sum(share for _, share in likeliest) == pytest.approx(1, abs=1e-3)
    assert counted.tolist() == info["validation"]["confusion"]
    lines = [json.loads(line) for line in (small_run.out / "metrics.jsonl").read_text().splitlines()]
    assert {point["x"]: point["loss"] for point in content["curves"]["points"]} == {
        line["l2"]: line["loss"] for line in lines
    }


def test_nothing_in_the_page_is_fetched_from_elsewhere(page):
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "sourceMappingURL" not in page
    assert "@import" not in page
    assert page.count("data:image/webp;base64,") == 1
    sheet = re.search(r"data:image/webp;base64,([\w+/=]+)", page)[1]
    assert base64.b64decode(sheet).startswith(b"RIFF")


def test_scripts_have_at_most_a_megabyte_and_a_half(page):
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 2
    assert sum(map(len, scripts)) < 1_500_000


def test_a_warm_run_takes_the_drawn_overview_and_damage_is_drawn_again(page, small_run, report, monkeypatch):
    def drawn(*_, **__):
        raise AssertionError("it was drawn again")

    again = replace(small_run, overwrite=True)
    with monkeypatch.context() as patched:
        patched.setattr("tlcli.reports.run_report.draw_overview", drawn)
        finetune(again, report)
    assert content_of((small_run.out / "report.html").read_text())["images"] == content_of(page)["images"]
    (kept,) = small_run.cache.root().glob("*/overview-*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    finetune(again, report)
    assert any("overview" in warning and "made again" in warning for warning in report.warnings)
    assert content_of((small_run.out / "report.html").read_text())["images"] == content_of(page)["images"]
    (mended,) = small_run.cache.root().glob("*/overview-*.safetensors")
    assert mended == kept


def test_other_images_get_another_overview(small_run, page, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "disc" / "00.jpg").unlink()
    finetune(replace(small_run, data=tmp_path / "photos", out=tmp_path / "run"))
    assert len(content_of((tmp_path / "run" / "report.html").read_text())["images"]) == 44
    assert len(list(small_run.cache.root().glob("*/overview-*.safetensors"))) == 2


def test_layers_that_were_trained_have_curves_and_a_map_of_logits(small_run, tmp_path):
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

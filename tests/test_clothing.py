"""The main job on real photographs, where they are there: the figures that are promised, by the installed command."""

import json
from pathlib import Path

import pytest

CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "clothing"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the clothing pictures are not at {CLOTHING}"),
]


def test_finetune_evaluate_and_predict_on_clothing(tmp_path, measured):
    run, cache = tmp_path / "run", tmp_path / "cache"

    def tlcli(*arguments):
        done, kilobytes = measured(*arguments, "--json", TLCLI_CACHE=str(cache))
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout), kilobytes

    info, peak = tlcli("finetune", CLOTHING, "--out", run)
    assert info["images"] | {"train": 3068, "validation": 341, "test": 372, "failed": 0} == info["images"]
    assert info["test"]["accuracy"] >= 0.885
    assert peak < 2.5e6

    warm, _ = tlcli("finetune", CLOTHING, "--out", tmp_path / "warm")
    assert warm["images"]["computed"] == 0
    assert warm["files"]["model.safetensors"] == info["files"]["model.safetensors"]

    judged, _ = tlcli("evaluate", run, CLOTHING)
    assert judged["split"] == "test"
    assert judged["confusion"] == info["test"]["confusion"]

    shirts = CLOTHING / "test" / "t-shirt"
    predicted, _ = tlcli("predict", run, shirts, "--out", tmp_path / "rows.csv")
    row = info["test"]["confusion"][info["classes"].index("t-shirt")]
    assert predicted["labels"] == {name: count for name, count in zip(info["classes"], row, strict=True) if count}

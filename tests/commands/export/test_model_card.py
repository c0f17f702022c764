"""The model card has working code, metrics, and escaped names."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from exported_runs import IMAGE, WITHOUT

from tlcli.exporting.model_card import model_card
from tlcli.runs.run import load_run


@pytest.mark.slow
def test_the_model_card_has_working_code_and_metrics(export_as, trained):
    place = export_as("timm").folder
    card = (place / "street-timm" / "README.md").read_text()
    assert f"Accuracy {100 * trained.info['validation']['accuracy']:.1f} %" in card
    assert "| Images, train | 45 |" in card
    assert all(f"| {name} | 15 |" in card for name in trained.info["classes"])
    lines = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace("image.jpg", IMAGE)
    code = WITHOUT.format(refused={"tlcli"}) + lines
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in trained.info["classes"]


def test_the_model_card_escapes_names(gray):
    run = load_run(gray)
    card = model_card(run, 'x"#y')
    assert "<script>" not in card
    assert r"a\"b" not in card.split("## Use")[0].split("---")[2]
    rows = [line for line in card.splitlines() if line.startswith("| ") and line.endswith(" % |")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert f"torch.tensor({run.info['log_prior']!r})" in card

"""A program that uses the package. `make lint` checks that mypy sees the types of lazy imports; nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import tlcli
from tlcli import CompareSettings, FinetuneSettings, NetworkSettings, PredictSettings, compare, finetune, predict

assert_type(finetune(FinetuneSettings(data=Path("photos"))), dict[str, Any])
assert_type(predict(PredictSettings(run=Path("run"), inputs=("photos",))), tlcli.PredictResult)
assert_type(compare(CompareSettings(run_a=Path("a"), run_b=Path("b"))), tlcli.CompareResult)
assert_type(NetworkSettings().seed, int)
assert_type(tlcli.__version__, str)
print(tlcli.train)  # type: ignore[attr-defined]  # unknown names are errors, not Any

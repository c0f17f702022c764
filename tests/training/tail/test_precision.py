"""The precision of training."""

import pytest
import torch

from tlcli.training.tail.precision import training_precision

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_requested_precision_is_used():
    assert training_precision("fp32", CPU) == "fp32"
    assert training_precision("bf16", CPU) == "bf16"
    assert training_precision("auto", CPU) in {"fp32", "bf16"}
    assert training_precision("auto", torch.device("meta")) == "fp32"

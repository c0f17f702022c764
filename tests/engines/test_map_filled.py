"""What an image gives in torch on a CPU does not depend, to the last bit, on how many are with it in a batch."""

import numpy as np
import pytest
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.torch_engine import PrefixRunner, filled, map_filled


def test_a_batch_is_filled_with_its_last_image():
    pixels = np.arange(6, dtype=np.uint8).reshape(3, 2)
    assert filled(pixels, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert filled(pixels, 3) is pixels
    assert filled(pixels, 2) is pixels


@pytest.mark.parametrize(("name", "size"), [("lenet5", None), ("tf_efficientnet_lite0", 64)])
def test_neither_the_number_nor_the_place_in_a_batch_matters(name, size):
    backbone = load_backbone(name, "none", classes=2, size=size, seed=0)
    spec = backbone.input
    runner = PrefixRunner(
        cut_at(backbone, "all").prefix, spec.mean, spec.std, device=torch.device("cpu"), precision="fp32"
    )
    shape = (7, spec.height, spec.width, spec.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    whole = np.concatenate(list(map_filled(runner, [pixels[:4], pixels[4:]], 4)))
    assert whole.shape[0] == 7
    for start in range(7):
        for stop in range(start + 1, min(7, start + 4) + 1):
            (some,) = map_filled(runner, [pixels[start:stop]], 4)
            np.testing.assert_array_equal(some, whole[start:stop])

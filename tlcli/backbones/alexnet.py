"""AlexNet as in torchvision (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks")."""

from __future__ import annotations

from typing import Any, ClassVar

from torchvision.models import AlexNet as TorchvisionAlexNet
from torchvision.models import AlexNet_Weights

WEIGHTS_URL: str = AlexNet_Weights.IMAGENET1K_V1.url


class AlexNet(TorchvisionAlexNet):
    """torchvision's AlexNet, with the same state-dict keys, plus the attributes that timm's networks have.

    Args:
        num_classes: Number of outputs.
    """

    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "architecture": "torchvision/alexnet",
        "url": WEIGHTS_URL,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "crop_pct": 224 / 256,
        "first_conv": "features.0",
        "classifier": "classifier.6",
    }

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(num_classes=num_classes)
        self.num_classes = num_classes
        self.num_features = 4096

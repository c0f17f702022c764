"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition").

Shapes: B images, k classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class LeNet5(nn.Module):
    """Two 5x5 convolutions without padding, average pooling, and tanh; 61,706 parameters with 10 classes.

    As in most modern implementations, the second convolution takes all six maps, the pooling has no weights, and the
    last layer is linear.

    Args:
        num_classes: Number of outputs.
    """

    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "architecture": "lenet5",
        "num_classes": 10,
        "input_size": (1, 32, 32),
        "fixed_input_size": True,
        "mean": (0.5,),
        "std": (0.5,),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "first_conv": "conv1",
        "classifier": "head",
    }

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 84
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.act1 = nn.Tanh()
        self.pool1 = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.act2 = nn.Tanh()
        self.pool2 = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.act3 = nn.Tanh()
        self.fc2 = nn.Linear(120, 84)
        self.act4 = nn.Tanh()
        self.head = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [B, k] of gray images float [B, 1, 32, 32]."""
        maps = self.pool1(self.act1(self.conv1(images)))
        maps = self.pool2(self.act2(self.conv2(maps)))
        vector = self.act3(self.fc1(self.flatten(maps)))
        logits: Tensor = self.head(self.act4(self.fc2(vector)))
        return logits

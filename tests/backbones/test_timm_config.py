"""A network is rebuilt from timm's config.json."""

import pytest

from tlcli.backbones.timm_config import rebuild_backbone
from tlcli.errors import ArtifactError


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ArtifactError, match="resnet_from_the_future"):
        rebuild_backbone({"architecture": "resnet_from_the_future", "num_classes": 2, "pretrained_cfg": {}})
    with pytest.raises(ArtifactError, match="no architecture"):
        rebuild_backbone({})

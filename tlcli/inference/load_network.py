"""Load a run's trained network in torch."""

from __future__ import annotations

from dataclasses import replace

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.timm_config import rebuild_backbone
from tlcli.errors import ArtifactError
from tlcli.runs.run import Run


def load_network(run: Run) -> Backbone:
    """Build a run's network with its trained weights, in eval mode on the CPU.

    Raises:
        ArtifactError: The weights do not fit the architecture.
    """
    backbone = rebuild_backbone(run.config)
    try:
        backbone.model.load_state_dict(run.weights(), strict=True)
    except RuntimeError as error:
        raise ArtifactError(f"the weights in {run.directory} do not fit {backbone.name}: {error}") from error
    return replace(backbone, name=run.info["backbone"], origin="weights of the run")

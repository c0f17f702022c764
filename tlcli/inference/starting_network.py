"""The network that a command starts from: a backbone by name, or the network of a run (`--backbone RUN`)."""

from __future__ import annotations

from dataclasses import replace

from tlcli.backbones.backbone import Backbone
from tlcli.errors import ArtifactError, UsageError
from tlcli.features.cache import FeatureCache
from tlcli.features.known_networks import open_backbone
from tlcli.runs.directory import WEIGHTS_FILE, is_run
from tlcli.runs.run import Run, load_run
from tlcli.settings import NetworkSettings
from tlcli.storage.urls import parse_location


def open_starting_run(wanted: NetworkSettings) -> tuple[Run | None, NetworkSettings]:
    """Load the run that `--backbone` names.

    Returns:
        The run, None if `--backbone` names a backbone; and the settings, with the run's `fit` and `intensity` where the
        user gave none. The run's network has its own size.

    Raises:
        UsageError: `--weights` is given, which has no effect with a run.
        ArtifactError: The run is unfinished, damaged, or of another format.
    """
    if not is_run(wanted.backbone):
        return None, wanted
    if wanted.weights != NetworkSettings.weights:
        raise UsageError(f"--weights has no effect with the run {wanted.backbone}, which has its own. Remove it.")
    run = load_run(parse_location(wanted.backbone))
    intensity = wanted.intensity
    if intensity is None and run.preprocessing.intensity is not None:
        intensity = ",".join(map(str, run.preprocessing.intensity))
    return run, replace(wanted, fit=wanted.fit or run.preprocessing.fit, intensity=intensity)


def load_starting_network(
    wanted: NetworkSettings, run: Run | None, *, classes: int, cache: FeatureCache | None = None
) -> Backbone:
    """Return the network with its weights and a new head, on the CPU.

    A backbone whose outline is in the cache is built when needed.

    Args:
        wanted: The settings; `backbone` and `size` are fixed.
        run: The run that the network comes from; None for the backbone in `wanted`.
        classes: Number of outputs of the head.
        cache: The cache that may hold an outline; None builds the network at once.

    Raises:
        UsageError: There is no such backbone, or the network does not support this size.
        DataError: The weights file is missing.
        ArtifactError: The weights cannot be read, or do not fit the network.
        MachineError: The weights are not on this machine, and the hub cannot be reached.
    """
    if run is None:
        return open_backbone(wanted, classes=classes, cache=cache)
    return network_of_run(wanted, run, classes=classes)


def network_of_run(wanted: NetworkSettings, run: Run, *, classes: int) -> Backbone:
    """Build the network of a run with its weights and a new head, on the CPU.

    Args:
        wanted: The settings; `backbone` and `size` are fixed.
        run: The run.
        classes: Number of outputs of the head.

    Raises:
        UsageError: The network does not support this size.
        ArtifactError: The weights do not fit the network.
    """
    from tlcli.backbones.heads import AUXILIARY_HEAD, head_names, reset_head
    from tlcli.backbones.timm_config import rebuild_backbone
    from tlcli.backbones.weights_file import load_matching_state
    from tlcli.backbones.zoo import seeded

    with seeded(wanted.seed):
        backbone = rebuild_backbone(run.config, classes=classes, size=wanted.input_size)
        heads = [*head_names(backbone.model), AUXILIARY_HEAD]
        try:
            load_matching_state(backbone.model, run.weights(), heads, run.directory / WEIGHTS_FILE)
        except ArtifactError as error:
            if wanted.input_size in {None, run.preprocessing.width}:
                raise
            raise UsageError(
                f"--size {wanted.size} does not fit the weights of {wanted.backbone}, which was trained on images of "
                f"{run.preprocessing.width} pixels. Remove it. ({error.message})"
            ) from error
        reset_head(backbone.model)
    # The name of the backbone that the run began with, so that its frozen layers have the same feature cache.
    return replace(backbone, name=run.info["backbone"], origin=f"weights of {wanted.backbone}")

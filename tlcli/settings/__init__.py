"""What the user chose: frozen dataclasses, the one place where defaults live. Torch-free.

Checks that need nothing but the values happen on construction and quote the value.
"""

from tlcli.settings.commands import (
    EXPLAINED,
    AugmentSettings,
    CacheFeaturesSettings,
    CheckSettings,
    EvaluateSettings,
    FinetuneSettings,
    InspectSettings,
    PredictSettings,
)
from tlcli.settings.export import ExportSettings
from tlcli.settings.machines import PART_SIZE, ClusterSettings, Shard, choose_cluster, parse_shard
from tlcli.settings.shared import (
    DEFAULT_BACKBONE,
    SPLITS,
    TRACKERS,
    CacheSettings,
    ComputeSettings,
    NetworkSettings,
    TrainingSettings,
    intensity_range,
)

__all__ = [
    "DEFAULT_BACKBONE",
    "EXPLAINED",
    "PART_SIZE",
    "SPLITS",
    "TRACKERS",
    "AugmentSettings",
    "CacheFeaturesSettings",
    "CacheSettings",
    "CheckSettings",
    "ClusterSettings",
    "ComputeSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneSettings",
    "InspectSettings",
    "NetworkSettings",
    "PredictSettings",
    "Shard",
    "TrainingSettings",
    "choose_cluster",
    "intensity_range",
    "parse_shard",
]

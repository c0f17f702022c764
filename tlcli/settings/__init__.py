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
from tlcli.settings.shared import (
    DEFAULT_BACKBONE,
    SPLITS,
    CacheSettings,
    ComputeSettings,
    NetworkSettings,
    TrainingSettings,
    cache_directory,
    default_cache,
    intensity_range,
)

__all__ = [
    "DEFAULT_BACKBONE",
    "EXPLAINED",
    "SPLITS",
    "AugmentSettings",
    "CacheFeaturesSettings",
    "CacheSettings",
    "CheckSettings",
    "ComputeSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneSettings",
    "InspectSettings",
    "NetworkSettings",
    "PredictSettings",
    "TrainingSettings",
    "cache_directory",
    "default_cache",
    "intensity_range",
]

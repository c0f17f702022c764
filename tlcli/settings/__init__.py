"""What the user chose: frozen dataclasses with one module per command, and the only place for defaults and options.

Each field declares its command-line option; `cli` composes the commands from these declarations. Values are checked on
construction, and `UsageError` quotes them. No torch, NumPy or Typer here; may import `storage`, `processes`, `errors`.
"""

from tlcli.settings.augment import AugmentSettings
from tlcli.settings.benchmark import BenchmarkSettings
from tlcli.settings.cache import CacheSettings
from tlcli.settings.cache_features import CacheFeaturesSettings
from tlcli.settings.check import CheckSettings
from tlcli.settings.columns import TableColumns
from tlcli.settings.compare import CompareSettings
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.evaluate import MEASURES, SPLITS, EvaluateSettings
from tlcli.settings.export import ExportSettings
from tlcli.settings.filters import PathPatterns
from tlcli.settings.finetune import TRACKERS, FinetuneSettings
from tlcli.settings.inspect import InspectSettings
from tlcli.settings.label import LabelSettings
from tlcli.settings.machines import ClusterSettings, Shard
from tlcli.settings.network import DEFAULT_BACKBONE, FITS, NetworkSettings, intensity_range
from tlcli.settings.predict import DEFAULT_EXPLAIN_LIMIT, DEFAULT_UNKNOWN_RATE, PredictSettings
from tlcli.settings.serve import ServeSettings
from tlcli.settings.similar import SimilarSettings
from tlcli.settings.training import TrainingSettings

__all__ = [
    "DEFAULT_BACKBONE",
    "DEFAULT_EXPLAIN_LIMIT",
    "DEFAULT_UNKNOWN_RATE",
    "FITS",
    "MEASURES",
    "SPLITS",
    "TRACKERS",
    "AugmentSettings",
    "BenchmarkSettings",
    "CacheFeaturesSettings",
    "CacheSettings",
    "CheckSettings",
    "ClusterSettings",
    "CompareSettings",
    "ComputeSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneSettings",
    "InspectSettings",
    "LabelSettings",
    "NetworkSettings",
    "PathPatterns",
    "PredictSettings",
    "ServeSettings",
    "Shard",
    "SimilarSettings",
    "TableColumns",
    "TrainingSettings",
    "intensity_range",
]

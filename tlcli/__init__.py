"""Transfer learning from the command line, and from Python: each command is a function that takes its settings.

Everything here is imported when it is first used, so that `import tlcli` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlcli.backbones.zoo import BackboneListing, list_backbones
    from tlcli.commands.augment import augment
    from tlcli.commands.cache import cache_list, cache_prune
    from tlcli.commands.cache_features import cache_features
    from tlcli.commands.check import CheckResult, check
    from tlcli.commands.evaluate import evaluate
    from tlcli.commands.export import ExportResult, export
    from tlcli.commands.finetune import finetune
    from tlcli.commands.inspect import InspectResult, inspect
    from tlcli.commands.layers import LayersResult, layers
    from tlcli.commands.predict import PredictResult, predict
    from tlcli.errors import ArtifactError, DataError, MachineError, TlcliError, UsageError
    from tlcli.features.listing import CacheListing
    from tlcli.progress import Reporter
    from tlcli.settings import (
        AugmentSettings,
        CacheFeaturesSettings,
        CacheSettings,
        CheckSettings,
        ComputeSettings,
        EvaluateSettings,
        ExportSettings,
        FinetuneSettings,
        InspectSettings,
        NetworkSettings,
        PredictSettings,
        TrainingSettings,
    )
    from tlcli.settings.augmentation import Augmentation

    __version__: str

__all__ = [
    "ArtifactError",
    "AugmentSettings",
    "Augmentation",
    "BackboneListing",
    "CacheFeaturesSettings",
    "CacheListing",
    "CacheSettings",
    "CheckResult",
    "CheckSettings",
    "ComputeSettings",
    "DataError",
    "EvaluateSettings",
    "ExportResult",
    "ExportSettings",
    "FinetuneSettings",
    "InspectResult",
    "InspectSettings",
    "LayersResult",
    "MachineError",
    "NetworkSettings",
    "PredictResult",
    "PredictSettings",
    "Reporter",
    "TlcliError",
    "TrainingSettings",
    "UsageError",
    "augment",
    "cache_features",
    "cache_list",
    "cache_prune",
    "check",
    "evaluate",
    "export",
    "finetune",
    "inspect",
    "layers",
    "list_backbones",
    "predict",
]

_ELSEWHERE = {
    "Augmentation": "settings.augmentation",
    "BackboneListing": "backbones.zoo",
    "CacheListing": "features.listing",
    "CheckResult": "commands.check",
    "ExportResult": "commands.export",
    "InspectResult": "commands.inspect",
    "LayersResult": "commands.layers",
    "PredictResult": "commands.predict",
    "Reporter": "progress",
    "cache_list": "commands.cache",
    "cache_prune": "commands.cache",
    "list_backbones": "backbones.zoo",
}
"""Modules of the names that are in neither `settings`, `errors`, nor a command's own module."""


def _module_of(name: str) -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    if name.endswith("Settings"):
        return "settings"
    return "errors" if name.endswith("Error") else f"commands.{name}"


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in __all__:
            from importlib import import_module

            value = getattr(import_module(f"tlcli.{_module_of(name)}"), name)
            globals()[name] = value
            return value
        if name == "__version__":  # reading package metadata takes longer than all of --help
            from importlib.metadata import version

            return version("tlcli")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]

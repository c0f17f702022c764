"""Settings of `cache-features`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.augmentation import AUGMENTATION_OPTIONS, Augmentation, check_views
from tlcli.settings.cache import CacheSettings
from tlcli.settings.checks import at_least
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, OVERWRITE_OPTION, VIEWS_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.machines import CLUSTER_OPTIONS, SHARD_OPTION, ClusterSettings, Shard, check_machines
from tlcli.settings.network import NetworkSettings
from tlcli.settings.options import NETWORK, OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location

FREEZE_OPTION = Option(
    help="Cache the output of the layers before the softmax head (all), or up to layer N or LAYER (see tlcli layers).",
    metavar="all|N|LAYER",
    panel=NETWORK,
)


@dataclass(frozen=True, kw_only=True)
class CacheFeaturesSettings:
    """Settings of `cache_features`."""

    data: Location = field(metadata=DATA_ARGUMENT)
    export: Location | None = field(
        default=None,
        metadata=Option(
            help="Also write path, label, split, digest and feature of each image to this file.",
            metavar="FILE.parquet",
            panel=OUTPUT,
            parse=parse_location,
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    augmentation: Augmentation | None = field(default=None, metadata=AUGMENTATION_OPTIONS)
    """Augmentation of the views; needs `views`."""
    views: int | None = field(default=None, metadata=VIEWS_OPTION)
    network: NetworkSettings = field(
        default_factory=NetworkSettings,
        metadata=OptionGroup(settings=NetworkSettings, instead={"freeze": FREEZE_OPTION}),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings))
    shard: Shard | None = field(default=None, metadata=SHARD_OPTION)
    cluster: ClusterSettings | None = field(default=None, metadata=CLUSTER_OPTIONS)
    """Compute the features on this Ray cluster; None computes them in this process."""
    cache: CacheSettings = field(
        default_factory=CacheSettings, metadata=OptionGroup(settings=CacheSettings, without=("enabled",))
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        self.network.require_fixed("cache-features")
        if self.network.freeze in {"none", "auto"}:
            raise UsageError(
                f"--freeze is {self.network.freeze!r}; expected all, or the number or name of a layer: the cache holds "
                "the output of one set of frozen layers."
            )
        at_least("--views", self.views, 1)
        check_machines(self.shard, self.cluster, self.compute.device)
        check_views(self.network.freeze, self.views, self.augmentation)
        if self.views is None and self.augmentation is not None and self.augmentation.enabled:
            raise UsageError("augmentation has no effect without --views K: only views above 0 are augmented.")
        if self.overwrite and self.export is None:
            raise UsageError("--overwrite has no effect without --export FILE: the cache itself only grows.")
        if self.export is not None and self.export.suffix.lower() != ".parquet":
            raise UsageError(f"--export is {self.export}; expected a name ending in .parquet.")

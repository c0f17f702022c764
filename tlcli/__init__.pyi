"""The public names of this package, and the modules that define them; `__init__.py` imports them on first use."""

from .backbones.zoo import (
    BackboneListing as BackboneListing,
    list_backbones as list_backbones,
)
from .commands.augment import augment as augment
from .commands.benchmark import benchmark as benchmark
from .commands.cache import (
    cache_list as cache_list,
    cache_prune as cache_prune,
)
from .commands.cache_features import cache_features as cache_features
from .commands.check import (
    CheckResult as CheckResult,
    check as check,
)
from .commands.compare import (
    CompareResult as CompareResult,
    compare as compare,
)
from .commands.evaluate import evaluate as evaluate
from .commands.export import (
    ExportResult as ExportResult,
    export as export,
)
from .commands.finetune import finetune as finetune
from .commands.inspect import (
    InspectResult as InspectResult,
    inspect as inspect,
)
from .commands.label import label as label
from .commands.layers import (
    LayersResult as LayersResult,
    layers as layers,
)
from .commands.predict import predict as predict
from .commands.serve import serve as serve
from .commands.similar import (
    SimilarResult as SimilarResult,
    similar as similar,
)
from .errors import (
    ArtifactError as ArtifactError,
    DataError as DataError,
    MachineError as MachineError,
    TlcliError as TlcliError,
    UsageError as UsageError,
)
from .features.listing import CacheListing as CacheListing
from .inference.result import PredictResult as PredictResult
from .progress import Reporter as Reporter
from .settings import (
    AugmentSettings as AugmentSettings,
    BenchmarkSettings as BenchmarkSettings,
    CacheFeaturesSettings as CacheFeaturesSettings,
    CacheSettings as CacheSettings,
    CheckSettings as CheckSettings,
    CompareSettings as CompareSettings,
    TableColumns as TableColumns,
    ComputeSettings as ComputeSettings,
    EvaluateSettings as EvaluateSettings,
    ExportSettings as ExportSettings,
    PathPatterns as PathPatterns,
    FinetuneSettings as FinetuneSettings,
    InspectSettings as InspectSettings,
    LabelSettings as LabelSettings,
    NetworkSettings as NetworkSettings,
    PredictSettings as PredictSettings,
    ServeSettings as ServeSettings,
    SimilarSettings as SimilarSettings,
    TrainingSettings as TrainingSettings,
)
from .settings.augmentation import Augmentation as Augmentation

__version__: str

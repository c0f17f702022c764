"""Options that several commands share, each declared once. Defaults come from `tlcli.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings

_NETWORK = "Network"
_COMPUTE = "Hardware"
_CACHE = "Cache"
_OUTPUT = "Output"

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        readable=False,  # said by us, with the contract's exit code
        help="root/CLASS/*.jpg, or root/{train,val,test}/CLASS/*, or a .csv, .jsonl or .parquet table with the "
        "columns path, label[, split][, group].",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="The directory that finetune wrote.")]

Backbone = Annotated[
    str,
    typer.Option(
        "--backbone", metavar="NAME", help="A timm name, torchvision/alexnet, or lenet5.", rich_help_panel=_NETWORK
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="pretrained|none|FILE",
        help="none is random; FILE is .safetensors or .pth.",
        rich_help_panel=_NETWORK,
    ),
]
Freeze = Annotated[
    str,
    typer.Option(
        "--freeze", metavar="all", help="How much to freeze: all before the softmax head.", rich_help_panel=_NETWORK
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="PIXELS",
        help="Side of the network's input; more sees finer detail, slower.  \\[default: the backbone's own]",
        rich_help_panel=_NETWORK,
    ),
]
Fit = Annotated[
    str,
    typer.Option("--fit", metavar="crop|pad|squash", help="How a picture becomes square.", rich_help_panel=_NETWORK),
]
Seed = Annotated[int, typer.Option("--seed", help="Of random weights and of the split.", rich_help_panel=_NETWORK)]

Device = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda|cuda:1|mps", help="Where to compute.", rich_help_panel=_COMPUTE),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
        help="auto: fp32 on a CPU, fp16 autocast on CUDA.",
        rich_help_panel=_COMPUTE,
    ),
]
Engine = Annotated[
    str,
    typer.Option("--engine", metavar="auto|torch", help="What runs the frozen network.", rich_help_panel=_COMPUTE),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="B",
        help="Pictures at a time.  \\[default: 4 on a CPU, 256 on a GPU]",
        rich_help_panel=_COMPUTE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Decoding processes.  \\[default: one a core]", rich_help_panel=_COMPUTE
    ),
]

CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where features are kept.  \\[default: $TLCLI_CACHE, else ~/.cache/tlcli/features]",
        rich_help_panel=_CACHE,
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read every picture again, even those whose size and time of change are as remembered.",
        rich_help_panel=_CACHE,
    ),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=_OUTPUT)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where it was interrupted.", rich_help_panel=_OUTPUT)]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead of a summary.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=_OUTPUT)]
Verbose = Annotated[bool, typer.Option("--verbose", help="More detail.", rich_help_panel=_OUTPUT)]

NETWORK = NetworkSettings()
COMPUTE = ComputeSettings()
CACHE = CacheSettings()

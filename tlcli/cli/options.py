"""Options that several commands share, each declared once. Defaults come from `tlcli.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlcli.settings import (
    PART_SIZE,
    CacheSettings,
    ComputeSettings,
    NetworkSettings,
    TrainingSettings,
)
from tlcli.storage.urls import cache_directory

_NETWORK = "Network"
_COMPUTE = "Hardware"
_CACHE = "Cache"
_OUTPUT = "Output"
_MACHINES = "More machines"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="root/CLASS/*.jpg, or root/{train,val,test}/CLASS/*, a .csv, .jsonl or .parquet table with the "
        "columns path, label[, split][, group], or WebDataset's 'shards-{000..099}.tar'; or the URL of any.",
    ),
]
RunOrBackbone = Annotated[
    str, typer.Argument(metavar="RUN_OR_BACKBONE", help="A backbone's name, or a run's directory.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The directory that finetune wrote, or its URL.")]

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
        "--freeze",
        metavar="all|none|auto|N|LAYER",
        help="Freeze all before the softmax head, nothing, or up to a layer (see tlcli layers); auto tries several.",
        rich_help_panel=_NETWORK,
    ),
]
FreezeCached = Annotated[
    str,
    typer.Option(
        "--freeze",
        metavar="all|N|LAYER",
        help="Cache what comes before the softmax head, or behind a layer (see tlcli layers).",
        rich_help_panel=_NETWORK,
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
    typer.Option("--fit", metavar="crop|pad|squash", help="How an image becomes square.", rich_help_panel=_NETWORK),
]
Intensity = Annotated[
    str | None,
    typer.Option(
        "--intensity",
        metavar="LO,HI|auto",
        help="What becomes black and white of gray images with more than 8 bits; auto measures it on train.  "
        "\\[default: 0,65535]",
        rich_help_panel=_NETWORK,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", help="Of random weights, the split, views, and the order of training.", rich_help_panel=_NETWORK
    ),
]

Device = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda|cuda:1|mps", help="Where to compute.", rich_help_panel=_COMPUTE),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
        help="auto: features in fp32 on a CPU, in fp16 on CUDA; layers are trained in bf16 where that is fast.",
        rich_help_panel=_COMPUTE,
    ),
]
Engine = Annotated[
    str,
    typer.Option("--engine", metavar="auto|torch|onnx", help="What runs the frozen network.", rich_help_panel=_COMPUTE),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="B",
        help="Images at a time.  \\[default: for features 4 on a CPU, 256 on a GPU; 32 to train layers]",
        rich_help_panel=_COMPUTE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Decoding processes.  \\[default: one a core]", rich_help_panel=_COMPUTE
    ),
]

Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only the I-th of N parts of the images, in their order: one machine's share.  \\[default: all]",
        rich_help_panel=_MACHINES,
    ),
]

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="auto|ADDRESS",
        help="Have a Ray cluster compute (pip install 'tlcli\\[ray]'); auto is the one that this machine is part of, "
        "else a new one on it alone.",
        rich_help_panel=_MACHINES,
    ),
]
PartSize = Annotated[
    int | None,
    typer.Option(
        "--part-size",
        metavar="P",
        help=f"Images that a worker of the cluster is handed at a time.  \\[default: {PART_SIZE}]",
        rich_help_panel=_MACHINES,
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        "--cores",
        metavar="N",
        help="Cores of each worker of the cluster.  \\[default: 4, or the smallest machine's]",
        rich_help_panel=_MACHINES,
    ),
]

CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        parser=cache_directory,
        help="Where features are kept.  \\[default: $TLCLI_CACHE, else ~/.cache/tlcli/features]",
        rich_help_panel=_CACHE,
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read every image again, even those whose size and time of change are as remembered.",
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
TRAINING = TrainingSettings()

_AUGMENTATION = "Augmentation"

Augment = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="none|light|strong",
        help="A set of amounts; options below change single ones.",
        rich_help_panel=_AUGMENTATION,
    ),
]
Rotate = Annotated[
    float | None,
    typer.Option(
        "--rotate", metavar="DEGREES", help="Turn by up to this much either way.", rich_help_panel=_AUGMENTATION
    ),
]
Mirror = Annotated[
    bool | None,
    typer.Option(
        "--mirror/--no-mirror", help="Mirror left and right, half of the time.", rich_help_panel=_AUGMENTATION
    ),
]
FlipVertical = Annotated[
    bool | None,
    typer.Option("--flip-vertical", help="Flip top and bottom, half of the time.", rich_help_panel=_AUGMENTATION),
]
Crop = Annotated[
    float | None,
    typer.Option(
        "--crop",
        metavar="MIN_SCALE",
        help="Keep a random box of at least this share of the area, such as 0.5.",
        rich_help_panel=_AUGMENTATION,
    ),
]
Noise = Annotated[
    float | None,
    typer.Option(
        "--noise",
        metavar="STD",
        help="Add random noise of this standard deviation, in levels of 255.",
        rich_help_panel=_AUGMENTATION,
    ),
]
ColorShift = Annotated[
    str | None,
    typer.Option(
        "--color-shift",
        metavar="LEVELS|R,G,B",
        help="Add up to so many levels to each channel, at random; or exactly R,G,B, such as 20,-20,20.",
        rich_help_panel=_AUGMENTATION,
    ),
]
Views = Annotated[
    int | None,
    typer.Option(
        "--views",
        metavar="K",
        help="Cache K augmented views of each training image, instead of making new ones in every epoch.",
        rich_help_panel=_AUGMENTATION,
    ),
]

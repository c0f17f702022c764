"""Estimate what a billion images need: compute the tables of docs/scale.md from measured rates.

usage: python docs/scale.py            prints the tables
       python docs/scale.py --write    writes them to docs/scale.md; a test compares the page with this script
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.features.store import FeatureStore

BILLION, MILLION, HOUR, DAY = 10**9, 10**6, 3600, 86_400

# Measured on two cores of a server, default backbone at 224 pixels (see benchmarks/RESULTS.md for when and how).
IMAGE = 28_142
"""Mean bytes per image file, over 3,781 photographs, most of them 400 x 534 pixels."""
DECODE = 2.18e-3
"""Core-seconds to read and decode an image (steady.py)."""
DECODE_LARGE = 39.0e-3
"""Core-seconds to read and decode an image with 12 megapixels (decode.py)."""
NETWORK = 6.16e-3
"""Core-seconds of a forward pass in ONNX Runtime, fp32 (steady.py)."""
SHARE = 0.95
"""Share of the limit set by decoding and forward pass that `cache-features` reaches (steady.py)."""
EPOCH, EPOCH_AUGMENTED, EPOCH_OF = 3.4, 16.9, 3_068
"""Seconds per epoch on two cores, from the cache and augmented, and its images; cut after `blocks.5` (tails.py)."""
HELD = 1500
"""Bytes of memory per image in `cache-features` and `finetune`: path, digest, cache location (linear.py)."""
LISTED = 1_000_000 / 15.4
"""Paths per second until `predict` writes its first rows: a lower bound on the listing speed (million.py)."""
HEAD, HEAD_ROWS = 22.0, 1_000_000
"""Seconds for one fit of the head, and its number of 1,280-dimensional vectors (head.py --scale 1000000)."""
ROW = 49
"""Bytes per row of predictions in Parquet: 3,781 rows of `predict --out labels.parquet` take 186 kB."""

# Images per second of tf_efficientnet_lite0 on an RTX 4090, 16-bit, channels-last, without decoding, from timm's own
# table (results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv). No GPU was available for our own measurements.
GPU = 9_765.0

# Assumptions in US dollars. Replace them with your own.
CORE_HOUR, GPU_HOUR = 0.04, 0.50
STORED = 0.023
"""Object storage, per gigabyte and month."""
GETS = 0.40
"""Object storage, per million requests; reading within a region is free."""
DISK = 1e9
"""Read speed of a local disk, in bytes per second."""


@dataclass(frozen=True)
class Machines:
    """One way to compute features, with core-seconds and GPU-seconds per image."""

    name: str
    core: float
    gpu: float

    @property
    def cost(self) -> float:
        """Return the cost in dollars per million images."""
        return MILLION * (self.core * CORE_HOUR + self.gpu * GPU_HOUR) / HOUR


WAYS = [
    Machines("CPU, small images", (DECODE + NETWORK) / SHARE, 0.0),
    Machines("CPU, 12 megapixels", (DECODE_LARGE + NETWORK) / SHARE, 0.0),
    Machines("GPU, small images", DECODE / SHARE, 1 / GPU),
    Machines("GPU, 12 megapixels", DECODE_LARGE / SHARE, 1 / GPU),
]


def table(names, rows):
    """Return a Markdown table."""
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def amount(number, unit, per=1000):
    """Format a number with a metric prefix, for example `5.1 TB`."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while number >= per and len(prefixes) > 1:
        number /= per
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}"


def compute():
    """Return hours and cost of a billion features, and the machines needed to finish in a day."""
    return table(
        ["a billion features", "core-hours", "GPU-hours", "machines to finish in a day", "dollars per million images"],
        [
            [
                way.name,
                f"{BILLION * way.core / HOUR:,.0f}",
                f"{BILLION * way.gpu / HOUR:,.0f}" if way.gpu else "-",
                f"{BILLION * way.core / DAY / 64:,.1f} of 64 cores"
                + (f", {BILLION * way.gpu / DAY:,.1f} GPUs" if way.gpu else ""),
                f"{way.cost:.2f}",
            ]
            for way in WAYS
        ],
    )


def training():
    """Return hours and cost of an epoch over a billion images."""
    return table(
        ["an epoch over a billion, later layers trained", "core-hours", "dollars per million images"],
        [
            [
                name,
                f"{BILLION * 2 * epoch / EPOCH_OF / HOUR:,.0f}",
                f"{MILLION * 2 * epoch / EPOCH_OF / HOUR * CORE_HOUR:.2f}",
            ]
            for name, epoch in (("from the cache", EPOCH), ("with online augmentation", EPOCH_AUGMENTED))
        ],
    )


def caches():
    """Return the size of a cache at several cuts of the default backbone."""
    backbone = load_backbone("tf_efficientnet_lite0", "none", classes=2)
    rows = []
    for where in ("all", "blocks.5.3", "blocks.5.0", "blocks.4.0", "blocks.3.2", "blocks.2.1", "blocks.1.1"):
        cut = cut_at(backbone, where)
        store = FeatureStore(None, {}, cut.feature_shape)
        size = store.row_bytes()
        rows.append(
            [
                "all (before the head)" if where == "all" else where,
                f"{' x '.join(map(str, cut.feature_shape))} {store.dtype}",
                amount(size, "B"),
                amount(size * BILLION, "B"),
                f"{size / IMAGE:.1f}",
                f"{size * MILLION / 1e9 * STORED:.2f}",
            ]
        )
    names = ["cut", "feature", "per image", "per billion", "times the image file", "dollars per million and month"]
    return table(names, rows)


def network():
    """Return the throughput and bandwidth that each device needs."""
    core = SHARE / (DECODE + NETWORK)
    return table(
        ["", "images per second", "reads", "decoding cores needed"],
        [
            ["one core, decoding and forward pass", f"{core:,.0f}", amount(core * IMAGE * 8, "bit/s"), "-"],
            ["a machine of 64 cores", f"{64 * core:,.0f}", amount(64 * core * IMAGE * 8, "bit/s"), "-"],
            ["one GPU", f"{GPU:,.0f}", amount(GPU * IMAGE * 8, "bit/s"), f"{GPU * DECODE / SHARE:,.0f}"],
            [
                "one GPU, 12 megapixels",
                f"{GPU:,.0f}",
                "depends on file size",
                f"{GPU * DECODE_LARGE / SHARE:,.0f}",
            ],
        ],
    )


def limits():
    """Return the limits of a single process."""
    row = FeatureStore(None, {}, (1280,)).row_bytes()
    return table(
        ["resource", "for a billion", "limit in one process"],
        [
            [
                "memory of `cache-features` and `finetune`",
                amount(HELD * BILLION, "B"),
                f"{24e9 / HELD / 1e6:,.0f} million in 24 GB",
            ],
            [
                "verifying checksums when a cache is opened, 1 GB/s",
                f"{row * BILLION / DISK / HOUR:,.1f} hours",
                f"{600 * DISK / row / 1e6:,.0f} million in ten minutes",
            ],
            [
                "listing images",
                f"{BILLION / LISTED / HOUR:,.1f} hours",
                f"{600 * LISTED / 1e6:,.0f} million in ten minutes",
            ],
            [
                "one fit of the head",
                f"{HEAD * BILLION / HEAD_ROWS / HOUR:,.1f} hours, reading {amount(row * BILLION, 'B')} per step",
                f"{600 / HEAD * HEAD_ROWS / 1e6:,.0f} million in ten minutes",
            ],
            ["requests to object storage", f"{GETS * BILLION / MILLION:,.0f} dollars", "no limit"],
            ["rows of `predict`, Parquet", amount(ROW * BILLION, "B"), "no limit"],
        ],
    )


def tables():
    """Return all tables by the name of their marker in docs/scale.md."""
    return {"compute": compute(), "training": training(), "caches": caches(), "network": network(), "limits": limits()}


def put_into(text):
    """Return the page with all tables replaced."""
    for name, content in tables().items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        if not found or end not in rest:
            sys.exit(f"docs/scale.md has no markers for the table {name}")
        text = f"{before}{start}{content}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    page = Path(__file__).with_name("scale.md")
    if "--write" in sys.argv:
        page.write_text(put_into(page.read_text()))
    else:
        print("\n\n".join(tables().values()))

"""What a billion images take: the arithmetic behind docs/scale.md, from rates that were measured.

usage: python docs/scale.py            prints the tables
       python docs/scale.py --write    puts them into docs/scale.md, which a test compares with this
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.features.store import FeatureStore

BILLION, MILLION, HOUR, DAY = 10**9, 10**6, 3600, 86_400

# Measured on two cores of a server, default backbone at 224 pixels (benchmarks/RESULTS.md says how and when).
IMAGE = 28_142
"""Bytes of an image: the mean of 3,781 photographs, most of them 400 x 534 pixels."""
DECODE = 2.18e-3
"""Core-seconds to read and decode one (steady.py)."""
DECODE_LARGE = 39.0e-3
"""The same of one with 12 megapixels (decode.py)."""
NETWORK = 6.16e-3
"""Core-seconds of its forward pass in ONNX Runtime, fp32 (steady.py)."""
SHARE = 0.95
"""Of the limit that these two set, what `cache-features` runs at (steady.py)."""
EPOCH, EPOCH_AUGMENTED, EPOCH_OF = 3.4, 16.9, 3_068
"""Seconds of two cores for an epoch of so many images behind `blocks.5`, from the cache and augmented (tails.py)."""
HELD = 1500
"""Bytes of memory that `cache-features` and `finetune` hold for each image: path, digest, place (linear.py)."""
LISTED = 1_000_000 / 15.4
"""Paths a second until the first rows of `predict` are written, so at least the speed of listing (million.py)."""
HEAD, HEAD_ROWS = 22.0, 1_000_000
"""Seconds of one fit of the head on so many vectors of 1,280 (head.py --scale 1000000)."""
ROW = 49
"""Bytes of a row of predictions in Parquet: 3,781 rows of `predict --out labels.parquet` took 186 kB."""

# Measured by others: timm's own table, results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv, images a second of
# tf_efficientnet_lite0 on an RTX 4090, 16 bits, channels-last, without decoding. We had no GPU to measure on.
GPU = 9_765.0

# Assumed, and to be replaced by your own: US dollars.
CORE_HOUR, GPU_HOUR = 0.04, 0.50
STORED = 0.023
"""A gigabyte of object storage, a month."""
GETS = 0.40
"""A million requests to object storage; what is read within a region is free."""
DISK = 1e9
"""Bytes a second from a local disk."""


@dataclass(frozen=True)
class Machines:
    """One way to compute features: core-seconds and GPU-seconds an image."""

    name: str
    core: float
    gpu: float

    @property
    def cost(self) -> float:
        """Dollars for a million images."""
        return MILLION * (self.core * CORE_HOUR + self.gpu * GPU_HOUR) / HOUR


WAYS = [
    Machines("CPU, small images", (DECODE + NETWORK) / SHARE, 0.0),
    Machines("CPU, 12 megapixels", (DECODE_LARGE + NETWORK) / SHARE, 0.0),
    Machines("GPU, small images", DECODE / SHARE, 1 / GPU),
    Machines("GPU, 12 megapixels", DECODE_LARGE / SHARE, 1 / GPU),
]


def table(names, rows):
    """A Markdown table."""
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def amount(number, unit, per=1000):
    """With the prefix that fits, such as 5.1 TB."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while number >= per and len(prefixes) > 1:
        number /= per
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}"


def compute():
    """Hours and dollars of a billion features, and machines for a day."""
    return table(
        ["a billion features", "core-hours", "GPU-hours", "machines to be done in a day", "dollars a million images"],
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
    """Hours of an epoch over a billion images."""
    return table(
        ["an epoch over a billion, two layers trained", "core-hours", "dollars a million images"],
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
    """Bytes of a cache at cuts of the default backbone."""
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
    names = ["cut", "feature", "an image", "a billion", "times the image's file", "dollars a million a month"]
    return table(names, rows)


def network():
    """What has to flow, and how fast."""
    core = SHARE / (DECODE + NETWORK)
    return table(
        ["", "images a second", "reads", "decoding cores it needs"],
        [
            ["one core, decoding and network", f"{core:,.0f}", amount(core * IMAGE * 8, "bit/s"), "-"],
            ["a machine of 64 cores", f"{64 * core:,.0f}", amount(64 * core * IMAGE * 8, "bit/s"), "-"],
            ["one GPU, fed", f"{GPU:,.0f}", amount(GPU * IMAGE * 8, "bit/s"), f"{GPU * DECODE / SHARE:,.0f}"],
            [
                "one GPU, fed with 12 megapixels",
                f"{GPU:,.0f}",
                "by their size",
                f"{GPU * DECODE_LARGE / SHARE:,.0f}",
            ],
        ],
    )


def limits():
    """What a single process could not do, and at how many images."""
    row = FeatureStore(None, {}, (1280,)).row_bytes()
    return table(
        ["what", "for a billion", "so, in one process, at most about"],
        [
            [
                "memory of `cache-features` and `finetune`",
                amount(HELD * BILLION, "B"),
                f"{24e9 / HELD / 1e6:,.0f} million in 24 GB",
            ],
            [
                "checking a cache's checksums when it is opened, 1 GB/s",
                f"{row * BILLION / DISK / HOUR:,.1f} hours",
                f"{600 * DISK / row / 1e6:,.0f} million in ten minutes",
            ],
            ["listing", f"{BILLION / LISTED / HOUR:,.1f} hours", f"{600 * LISTED / 1e6:,.0f} million in ten minutes"],
            [
                "one fit of the head",
                f"{HEAD * BILLION / HEAD_ROWS / HOUR:,.1f} hours, reading {amount(row * BILLION, 'B')} in each step",
                f"{600 / HEAD * HEAD_ROWS / 1e6:,.0f} million in ten minutes",
            ],
            ["requests to object storage", f"{GETS * BILLION / MILLION:,.0f} dollars", "no limit"],
            ["rows of `predict`, Parquet", amount(ROW * BILLION, "B"), "no limit"],
        ],
    )


def tables():
    """All of them, by the name of their place in docs/scale.md."""
    return {"compute": compute(), "training": training(), "caches": caches(), "network": network(), "limits": limits()}


def put_into(text):
    """The page with the tables in their places."""
    for name, content in tables().items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        if not found or end not in rest:
            sys.exit(f"docs/scale.md has no place for {name}")
        text = f"{before}{start}{content}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    page = Path(__file__).with_name("scale.md")
    if "--write" in sys.argv:
        page.write_text(put_into(page.read_text()))
    else:
        print("\n\n".join(tables().values()))

"""Options that several commands have, but no shared settings class."""

from __future__ import annotations

from typing import Literal

from tlcli.settings.filters import FILES
from tlcli.settings.options import AUGMENTATION, HARDWARE, OUTPUT, Option
from tlcli.storage.urls import parse_location

SERVER = "Server"
"""Panel of the options of servers."""
LOCAL = "127.0.0.1"
"""The address that only this machine can reach."""
AUTO: Literal["auto"] = "auto"
"""Value of an option that `finetune` chooses by measurement."""

DATA_ARGUMENT = Option(
    help="Labeled images: root/CLASS/*.jpg or root/{train,val,test}/CLASS/*; a .csv, .tsv, .jsonl, .json or .parquet "
    "table with columns such as path, label[, split][, group]; WebDataset tars such as 'shards-{000..099}.tar'; or a "
    "URL of any of these.",
    metavar="DATA",
    positional=True,
    parse=parse_location,
)
RUN_ARGUMENT = Option(
    help="A run: the directory that finetune wrote, or its URL.", metavar="RUN", positional=True, parse=parse_location
)
NETWORK_ARGUMENT = Option(
    help="A backbone's name, or the directory of a run.", metavar="RUN_OR_BACKBONE", positional=True
)
CORRECTIONS_OPTION = Option(
    help="Table with the correct labels of images: path, digest (the SHA-256 of the file), old, and new; an image "
    "without a new label is left out.",
    metavar="FILE",
    panel=FILES,
    parse=parse_location,
)
WORKERS_OPTION = Option(help="Number of decoder processes.", metavar="N", panel=HARDWARE, unset="one per core")
VIEWS_OPTION = Option(
    help="Cache K augmented views of each training image instead of augmenting anew in every epoch.",
    metavar="K",
    panel=AUGMENTATION,
    after="color_shift",
)
OVERWRITE_OPTION = Option(help="Replace existing output.", panel=OUTPUT)
RESUME_OPTION = Option(help="Continue where an interrupted command stopped.", panel=OUTPUT)

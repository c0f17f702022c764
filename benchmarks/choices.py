"""What `auto` chooses, and what each choice is worth on test images.

usage: python benchmarks/choices.py fit DATA...       test accuracy with each fit, and what --fit auto chooses
       python benchmarks/choices.py augment DATA...   what --augment auto tries and chooses, and its test accuracy
       python benchmarks/choices.py backbone DATA...  the same for --backbone auto, of the networks on this machine
       python benchmarks/choices.py size DATA...      the same for --size auto

DATA has test images. All layers before the head are frozen. Runs go to a temporary folder, features to the usual cache,
so a second call measures no extraction.
"""

import sys
import tempfile
import time
from pathlib import Path

from measure import machine, table

from tlcli import finetune
from tlcli.progress import Silent
from tlcli.settings import FITS, FinetuneSettings, NetworkSettings

AUTO = {
    "fit": {"network": NetworkSettings(fit="auto")},
    "size": {"network": NetworkSettings(size="auto")},
    "backbone": {"network": NetworkSettings(backbone="auto")},
    "augment": {"augmentation": "auto"},
}


def train(data, **changes):
    """Return `run.json`, and the seconds that the whole run took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        info = finetune(FinetuneSettings(data=Path(data), out=Path(folder) / "run", **changes), Silent())
        return info, time.monotonic() - started


def accuracy(info):
    return f"{info['test']['accuracy']:.3f}"


def gain(row):
    return "" if row["gain"] is None else f"{row['gain']:+.3f} ± {row['gain_error']:.3f}"


def fits(data):
    """Return a row: the name, test accuracy with each fit, what was chosen, and how clearly."""
    tests = {fit: accuracy(train(data, network=NetworkSettings(fit=fit))[0]) for fit in FITS}
    choice = train(data, **AUTO["fit"])[0]["choices"]["fit"]
    tried = choice["tried"]
    gains = [f"{row['value']} {gain(row)} than {row['than']}" for row in tried if row["than"]]
    seconds = f"{sum(row['seconds'] for row in tried):.1f}"
    return [Path(data).name, *tests.values(), choice["chosen"], "; ".join(gains), seconds]


def tried(data, what):
    """Print the table of one choice, and the test accuracies without and with it."""
    plain, _ = train(data)
    chosen, seconds = train(data, **AUTO[what])
    choice = next(iter(chosen["choices"].values()))
    rows = [
        (
            row["value"],
            f"{row['accuracy']:.3f}",
            f"{row['loss']:.3f}",
            gain(row),
            row["than"] or "",
            f"{row['seconds']:.1f}",
            "chosen" if row["chosen"] else "",
        )
        for row in choice["tried"]
    ]
    print(f"{Path(data).name}: {choice['images']} images, {choice['folds']}-fold\n")
    print(table(("candidate", "accuracy", "loss", "lower by", "than", "seconds", ""), rows))
    print(f"\ntest accuracy {accuracy(plain)} by default, {accuracy(chosen)} with the choice, {seconds:.0f} s in all\n")


def main(what, *folders):
    if what == "fit":
        columns = ("data", *(f"test, {fit}" for fit in FITS), "chosen", "loss lower by", "seconds")
        print(table(columns, [fits(data) for data in folders]), machine(), sep="\n\n")
        return
    for data in folders:
        tried(data, what)
    print(machine())


main(*sys.argv[1:])

"""Train LeNet-5 from scratch on scikit-learn's handwritten digits (8x8), and test it.

Tests on a random fifth, and on the last 360, by other writers.

usage: python benchmarks/digits.py [SEED]
       python benchmarks/digits.py --write FOLDER     (only writes the images, a fifth each for test and validation)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write(folder, *, test, validation=()):
    """Write the digits, scaled up to 32 pixels, as FOLDER/SPLIT/DIGIT/NUMBER.png."""
    digits = load_digits()
    split_of = dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = Path(folder) / split_of.get(index, "train") / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255 / 16).round().astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(path)


def main(seed):
    count = len(load_digits().target)
    order = np.random.default_rng(int(seed)).permutation(count).tolist()
    for name, held_out in {"a random fifth": order[: count // 5], "the last 360": range(count - 360, count)}.items():
        with tempfile.TemporaryDirectory() as folder:
            write(f"{folder}/digits", test=held_out)
            command = [sys.executable, "-m", "tlcli", "finetune", f"{folder}/digits", "--out", f"{folder}/run"]
            options = ["--backbone", "lenet5", "--weights", "none", "--freeze", "none", "--seed", seed]
            done = subprocess.run([*command, *options, "--json", "--quiet"], check=True, capture_output=True, text=True)
            info = json.loads(done.stdout)
            print(f"{name}: test accuracy {info['test']['accuracy']:.4f}, {info['seconds']['total']:.0f} s")


if sys.argv[1:2] == ["--write"]:
    everything = np.random.default_rng(0).permutation(len(load_digits().target)).tolist()
    fifth = len(everything) // 5
    write(sys.argv[2], test=everything[:fifth], validation=everything[fifth : 2 * fifth])
else:
    main((sys.argv[1:] or ["0"])[0])

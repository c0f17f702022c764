"""Made-up features, and whether a store has them."""

import hashlib
import random

import numpy as np

CONTENT = {"format": 1, "backbone": "tiny", "weights": "ab", "preprocessing": {"fit": "crop", "width": 16}}
SHAPE = (5,)
MAP = (3, 4, 2)


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def feature(key, shape=SHAPE, view=0):
    """Return the feature of an image in these tests: derived from its digest, exact in half precision."""
    generator = np.random.default_rng([*key, view])
    return generator.integers(-500, 500, shape).astype(np.float32) / 4


def fill(store, numbers, view=0):
    with store.writing():
        for number in numbers:
            store.add(digest(number), view, feature(digest(number), store.shape, view))


def check(store, numbers, view=0):
    """Check that `numbers` are stored, each with its own feature, in any order and repeated."""
    asked = [*numbers, *numbers[:3]]
    random.Random(0).shuffle(asked)
    keys = [digest(number) for number in asked]
    assert all((key, view) in store for key in keys)
    gathered = store.gather(keys, view)
    assert gathered.dtype == np.float32
    assert len(gathered) == len(keys)
    for key, row in zip(keys, gathered, strict=True):
        np.testing.assert_array_equal(row, feature(key, store.shape, view))

"""Vectors are stored in float32, maps and tokens in float16 unless they overflow it."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from stored_features import CONTENT, MAP, SHAPE, digest, fill

from tlcli.features.parts import map_part
from tlcli.features.rounding import round_as_stored
from tlcli.features.store import FeatureStore


def test_vectors_are_float32_and_maps_and_tokens_float16(tmp_path):
    for shape, dtype in [((5,), "float32"), ((3, 4, 2), "float16"), ((7, 2), "float16")]:
        store = FeatureStore(tmp_path, CONTENT | {"shape": str(shape)}, shape)
        fill(store, range(3))
        [path] = store.directory.glob("part-*.arrow")
        value = pa.from_numpy_dtype(dtype)
        assert map_part(path).table.schema.field("feature").type == pa.fixed_shape_tensor(value, shape)
        assert store.dtype == dtype
        header = json.loads((store.directory / "cache.json").read_text())
        assert (header["dtype"], header["feature_shape"]) == (dtype, list(shape))


def test_a_feature_that_was_just_computed_equals_the_one_from_disk(tmp_path):
    value = np.random.default_rng(0).normal(size=MAP).astype(np.float32)  # not exact in half precision
    store = FeatureStore(tmp_path, CONTENT, MAP)
    with store.writing():
        store.add(digest(0), 0, value)
    again = FeatureStore(tmp_path, CONTENT, MAP)
    np.testing.assert_array_equal(store.gather([digest(0)]), again.gather([digest(0)]))
    np.testing.assert_allclose(again.gather([digest(0)])[0], value, rtol=1e-3)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("shape", [MAP, (7, 2)])
def test_maps_and_tokens_that_overflow_float16_are_kept_in_float32(tmp_path, shape, on_disk):
    store = FeatureStore(tmp_path if on_disk else None, CONTENT, shape)
    values = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    # 65,504 is float16's largest; values between it and 65,520 would be rounded down to it.
    for row, (place, value) in enumerate([(0, 65_504), (3, -65_504), (5, 65_510), (7, -1e6), (2, 3e38)]):
        values[row].reshape(-1)[place] = value
    with store.writing():
        for number, value in enumerate(values):
            store.add(digest(number), 0, value)
    order = [7, 2, 0, 4, 3, 1, 1, 6, 5]
    for opened in (store, FeatureStore(tmp_path, CONTENT, shape)) if on_disk else (store,):
        gathered = opened.gather([digest(number) for number in order])
        for number, found in zip(order, gathered, strict=True):
            kept = np.float32 if number in (2, 3, 4) else np.float16
            np.testing.assert_array_equal(found, values[number].astype(kept))
        assert opened.dtype == np.float32
        assert np.isfinite(gathered).all()
    parts = [map_part(path).table.schema.field("feature").type for path in tmp_path.glob("*/part-*.arrow")]
    assert {str(part.value_type) for part in parts} == ({"halffloat", "float"} if on_disk else set())


@pytest.mark.parametrize("shape", [SHAPE, MAP, (7, 2), (2, 1, 1)])
def test_rounding_in_torch_equals_the_stored_values(shape):
    features = np.random.default_rng(1).normal(size=(200, *shape)).astype(np.float32)
    features *= 10 ** np.linspace(-9, 6, 200, dtype=np.float32).reshape(-1, *[1] * len(shape))  # subnormal to too large
    store = FeatureStore(None, CONTENT, shape)
    with store.writing():
        for number, value in enumerate(features):
            store.add(digest(number), 0, value)
    stored = store.gather([digest(number) for number in range(200)])
    np.testing.assert_array_equal(round_as_stored(torch.from_numpy(features)).numpy(), stored)
    np.testing.assert_array_equal(round_as_stored(torch.from_numpy(stored)).numpy(), stored)
    assert (len(shape) == 1) == np.array_equal(stored, features)
    assert round_as_stored(torch.zeros(0, *shape)).shape == (0, *shape)


def test_channels_last_maps_are_kept_row_by_row(tmp_path):
    maps = np.random.default_rng(2).integers(-9, 9, (6, 4, 2, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    store = FeatureStore(tmp_path, CONTENT, MAP)
    with store.writing():
        for number, value in enumerate(maps):
            store.add(digest(number), 0, value)
    np.testing.assert_array_equal(store.gather([digest(number) for number in range(6)]), maps)
    [path] = store.directory.glob("part-*.arrow")
    column = map_part(path).table["feature"].combine_chunks()
    assert column.type == pa.fixed_shape_tensor(pa.float16(), MAP)
    np.testing.assert_array_equal(column.storage.flatten().to_numpy(), maps.reshape(-1))

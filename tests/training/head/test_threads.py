"""Small fits use one thread each, whatever torch is set to, and give the same weights."""

import numpy as np
import pytest
import torch

from tlcli.errors import DataError
from tlcli.training.head import threads
from tlcli.training.head.l2_selection import select_folds, select_holdout
from tlcli.training.head.threads import map_fits, one_thread_each


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def clusters(count, classes=3, width=40):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    centers = torch.randn(classes, width, generator=generator)
    return centers[labels] + 2 * torch.randn(count, width, generator=generator), labels


def fit_folds(train):
    return select_folds(train, np.arange(len(train[1])) % 5, classes=3)


def fit_holdout(train):
    return select_holdout(train, train, classes=3)


@pytest.mark.parametrize("select", [fit_folds, fit_holdout])
@pytest.mark.parametrize("count", [30, 90])
def test_the_number_of_threads_changes_no_bit(torch_threads, select, count):
    found = []
    for number in (1, 2, 3):
        torch_threads(number)
        found.append(select(clusters(count)))
        assert torch.get_num_threads() == number
    for other in found[1:]:
        assert torch.equal(other.head.weight, found[0].head.weight)
        np.testing.assert_array_equal(other.logits, found[0].logits)


@pytest.mark.parametrize(
    ("values", "device", "threads_in_fit", "at_a_time"),
    [(threads.SMALL_VALUES, "cpu", 1, 3), (threads.SMALL_VALUES + 1, "cpu", 3, 1), (1, "cuda", 3, 1)],
)
def test_only_small_matrices_on_the_cpu_use_one_thread(torch_threads, values, device, threads_in_fit, at_a_time):
    torch_threads(3)
    with one_thread_each((1, values), device) as found:
        assert found == at_a_time
        assert map_fits(lambda _: torch.get_num_threads(), range(4), found) == [threads_in_fit] * 4
    assert torch.get_num_threads() == 3
    assert map_fits(lambda _: torch.get_num_threads(), range(4), 2) == [3] * 4


def test_an_error_of_one_fit_is_raised(torch_threads):
    torch_threads(2)
    features, labels = clusters(30)
    features[7, 3] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        fit_folds((features, labels))
    assert torch.get_num_threads() == 2

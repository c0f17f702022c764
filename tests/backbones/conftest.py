import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small networks: threads that wait for each other on busy cores cost more than they bring.

    Runs that tests elsewhere compare to the last bit are trained with as many threads as they: none is trained here.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Run small networks in one thread, because on busy cores threads spend more time waiting than they save.

    This is safe here only because these tests train no run that other tests compare to the last bit.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

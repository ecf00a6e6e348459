import pytest
import torch


@pytest.fixture
def one_thread():
    """So small a model is fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

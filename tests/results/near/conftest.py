import pytest

from tests.support.planted import Digits, plant


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Digits:
    return plant(tmp_path_factory.mktemp("digits"))

"""What all tests share."""

import pytest

from data_prep import binarise


@pytest.fixture(scope="module", autouse=True)
def quick_preprocess():
    """fairseq-preprocess without its seconds of imports; test_binarise takes the real one."""
    from tests.fixtures.warm import warm_commands

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binarise, "find_command", lambda name: str(warm_commands().folder / name))
        yield

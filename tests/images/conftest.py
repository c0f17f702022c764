"""The tests of images start decoder processes as tlcli does."""

import subprocess

import pytest

from tlcli.images import loader


@pytest.fixture(scope="module", autouse=True)
def started_decoders(decoder_servers):
    """Start decoder processes instead of forking them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "subprocess", subprocess)
        yield

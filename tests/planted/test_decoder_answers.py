"""Answers of decoder processes are JSON and bytes, never pickles."""

from __future__ import annotations

import io
import json
import pickle

import pytest
from hostile_files import Payload

from tlcli.images.worker import DecodedImage, receive_image, send_image


def test_the_output_of_a_decoder_is_never_unpickled():
    """A decoder sends JSON and bytes; a pickle is not accepted as an image."""
    with pytest.raises(EOFError):
        receive_image(io.BytesIO(pickle.dumps(Payload("/dev/null"))))


@pytest.mark.parametrize("length", [-1, 4, 2**40, "3", 1.5, [3]])
def test_a_decoder_that_sends_a_wrong_length_is_treated_as_crashed(length):
    stream = io.BytesIO()
    send_image(stream, DecodedImage(digest=bytes(32), pixels=b"abc"))
    whole = stream.getvalue()
    assert receive_image(io.BytesIO(whole)).pixels == b"abc"
    assert whole.count(b", 3]\n") == 1
    with pytest.raises(EOFError):
        receive_image(io.BytesIO(whole.replace(b", 3]\n", f", {json.dumps(length)}]\n".encode())))

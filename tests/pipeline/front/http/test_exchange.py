"""What all bodies together may take."""

from __future__ import annotations

import pytest

from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import BodyMemory
from pipeline.front.settings import FrontSettings


def test_no_more_than_there_is_and_again_when_it_was_given_back():
    settings = FrontSettings(
        model_name="tiny", vocab_size=9, max_length=9, max_prompt=8, max_rows=1, max_queue=1, body_memory_bytes=100
    )
    memory = BodyMemory(settings)
    memory.take(60)
    memory.take(40)
    with pytest.raises(ApiError) as caught:
        memory.take(1)
    assert caught.value.status == 503
    assert (b"retry-after", b"1") in caught.value.headers
    memory.give(40)
    memory.take(30)
    settings.body_memory_bytes = 200  # a reload
    memory.take(110)

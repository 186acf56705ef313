"""Both sides agree on everything that decides what a token or a limit is, or there is no link."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.link.frames import LinkError
from pipeline.link.hello import (
    NODE,
    ROUTER,
    Blame,
    Hello,
    Load,
    Room,
    Taken,
    difference,
    hello,
    tell,
    told,
    unpack_hello,
)

FACTS = {"model_config.vocab_size": 32000, "pipeline.model_name": "tiny"}
OURS = hello(NODE, "1.0", 7, FACTS)
THEIRS = hello(ROUTER, "1.0", 9, FACTS)


def test_a_hello_is_read_again():
    assert unpack_hello(THEIRS.pack()) == THEIRS
    assert difference(OURS, THEIRS) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"role": NODE}, "both sides are a node"),
        ({"version": "0.9"}, "the node's version is 1.0, the router's 0.9: both must be the same"),
        ({"protocol": 99}, "the node's protocol is 4, the router's 99"),
        ({"facts": FACTS | {"model_config.vocab_size": 8}}, "vocab_size is 32000 for the node and 8 for the router"),
        ({"facts": {"pipeline.model_name": "tiny"}}, "vocab_size is 32000 for the node and None for the router"),
        ({"facts": FACTS | {"new": 1}}, "new is None for the node and 1 for the router"),
    ],
)
def test_what_differs_is_named(change, why):
    assert why in difference(OURS, msgspec.structs.replace(THEIRS, **change))


@pytest.mark.parametrize(
    "payload", [b"", b"ringserve link\n", b"ringserve link\n\x80", b"anything", THEIRS.pack()[:-3]]
)
def test_a_hello_that_is_none(payload):
    with pytest.raises(LinkError):
        unpack_hello(payload)


def test_a_later_version_may_say_more():
    """Then both can refuse each other by name."""

    class Later(Hello, frozen=True):
        more: str = "news"

    later = Later(99, "9.0", ROUTER, 9, FACTS)
    assert "protocol is 4, the router's 99" in difference(hello(NODE, "9.0", 7, FACTS), unpack_hello(later.pack()))


@pytest.mark.parametrize(
    "message", [Room(4, 8), Blame("inference", None), Blame("", (1, 2)), Taken(1 << 40), Load(9)]
)
def test_what_is_said_of_lanes(message):
    assert told(tell(message), type(message)) == message
    with pytest.raises(LinkError):
        told(b"\xc1", type(message))

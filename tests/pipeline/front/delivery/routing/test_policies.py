"""The rules that the one by cost is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.front.delivery.routing.policies import make_router
from pipeline.front.settings import FrontSettings, LinkSettings

FIELDS = {"model_name": "x", "vocab_size": 9, "max_length": 9, "max_prompt": 8, "max_rows": 4, "max_queue": 4}


def homes(routing, prompts, ended=()):
    router = make_router(FrontSettings(**FIELDS, replicas=3, routing=routing))
    found = []
    for request, prompt in enumerate(prompts):
        choice = router.pick(prompt)
        router.sent(choice, [request])
        found.append(choice.replica)
        if request in ended:
            router.prefilled(request)
            router.finished(request, 5)
    return found


@pytest.mark.parametrize(
    ("routing", "expected"),
    [("round_robin", [0, 1, 2, 0, 1]), ("least_requests", [0, 1, 2, 1, 1]), ("cost", [0, 1, 2, 1, 1])],
)
def test_each_rule(routing, expected):
    """Three requests everywhere, then those at 1 end as soon as they have come."""
    assert homes(routing, ["a" * 64, "b" * 64, "c" * 64, "b" * 64, "b" * 64], ended=(1, 3, 4)) == expected


def test_only_the_cost_looks_at_what_is_cached():
    prompts = ["x" * 8000, "y" * 8000, "z" * 8000, "z" * 8000, "x" * 8000]
    assert homes("cost", prompts, ended=range(5)) == [0, 1, 2, 2, 0]
    assert homes("least_requests", prompts, ended=range(5)) == [0, 1, 2, 0, 1]


def test_routers_before_the_same_nodes_begin_anywhere():
    link = LinkSettings(max_nodes=250, ca=Path(), certificate=Path(), key=Path())
    settings = FrontSettings(**FIELDS, replicas=250, routing="cost", link=link)
    assert len({make_router(settings).pick("?").replica for _ in range(20)}) > 1


def test_a_replica_that_is_down_is_not_picked():
    for routing in ("cost", "least_requests", "round_robin"):
        router = make_router(FrontSettings(**FIELDS, replicas=3, routing=routing))
        router.replica_down(1)
        assert {router.pick(text).replica for text in "abcdefg"} == {0, 2}

"""Which replica gets a request."""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Sequence
from itertools import count

import pytest

from pipeline.front.delivery.routing import router as routing
from pipeline.front.delivery.routing.router import Choice, Router, Weights

NUMBERS = count(1)
LONG = "all of this is said before every question " * 100  # 4200 bytes


def priced(request: float, queued: float = 0, rows: int = 32) -> Weights:
    """So much in tokens of prefill, as long as no answer has ended."""
    return Weights(request / 128, queued / 128, rows)


def picked(
    router: Router,
    prompt: str | bytes,
    allowed: Sequence[int] | None = None,
    root: str = "",
    without: Collection[int] = (),
) -> Choice:
    choice = router.pick(prompt, allowed, root=root, without=without)
    assert choice is not None
    return choice


def send(
    router: Router, prompt: str | bytes = "?", allowed: Sequence[int] | None = None, root: str = ""
) -> tuple[int, Choice]:
    """Its number, and where it is."""
    choice = picked(router, prompt, allowed, root)
    number = next(NUMBERS)
    router.sent(choice, [number])
    return number, choice


def serve(router: Router, prompt: str | bytes, allowed: Sequence[int] | None = None, root: str = "") -> Choice:
    """From its arrival to its end, with as much in the cache as was expected."""
    number, choice = send(router, prompt, allowed, root)
    router.accepted(number, max(1, len(prompt) // 4))
    router.started(number, choice.expected_cached)
    router.prefilled(number)
    router.finished(number)
    return choice


def test_equal_replicas_take_turns() -> None:
    router = Router(4, Weights())
    assert [send(router)[1].replica for _ in range(9)] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    idle = Router(4, Weights())
    assert [serve(idle, "?").replica for _ in range(6)] == [0, 1, 2, 3, 0, 1]


def test_a_prompt_goes_where_its_beginning_is_cached() -> None:
    router = Router(4, Weights())
    first = serve(router, LONG)
    serve(router, "something else")
    again, choice = send(router, LONG + "and what then?")
    assert choice.replica == first.replica
    assert 900 < choice.expected_cached <= choice.tokens - 1
    assert first.expected_cached == 0
    router.finished(again)


def test_token_ids_are_recognized_too() -> None:
    router = Router(3, Weights())
    ids = array("i", range(500)).tobytes()
    serve(router, "?")
    assert serve(router, ids).replica == 1
    choice = serve(router, ids + array("i", [7, 8]).tobytes())
    assert (choice.replica, choice.tokens, choice.expected_cached) == (1, 502, 496)


def test_adapters_share_nothing() -> None:
    router = Router(2, Weights())
    serve(router, LONG)
    assert serve(router, LONG, root="an adapter").expected_cached == 0
    assert serve(router, LONG, root="an adapter").expected_cached > 0


def test_a_warm_cache_attracts_requests_only_until_its_queue_costs_more() -> None:
    router = Router(4, priced(4))
    serve(router, LONG)
    router.prefilled(0)
    there = [send(router, LONG + str(i) * 200)[1].replica for i in range(60)]
    by_replica = [there.count(replica) for replica in range(4)]
    assert min(by_replica) > 0  # the prefix is computed everywhere in the end
    assert max(by_replica) < 30


def test_no_replica_is_ever_ahead_by_more_than_a_prompt_is_worth() -> None:
    """So nothing waits without bound behind a warm cache."""
    weights, draw = Weights(), random.Random(1)
    router, live = Router(4, weights), list[list[int]]()
    live += ([] for _ in range(4))
    for _ in range(3000):
        number, choice = send(router, LONG + "?" * draw.randrange(300))
        router.started(number, choice.expected_cached)
        router.prefilled(number)
        live[choice.replica].append(number)
        busy = [numbers for numbers in live if numbers]
        if draw.random() < 0.9 and sum(map(len, live)) > 40:
            router.finished(draw.choice(busy).pop(0))
        most, least = max(map(len, live)), min(map(len, live))
        assert (most - least - 1) * 128 * weights.row <= len(LONG) / 4 + 300


def test_requests_without_a_row_weigh_more() -> None:
    router = Router(2, priced(1, 600, rows=2))
    serve(router, LONG)  # about 1000 tokens, on replica 0
    busy = [send(router, LONG)[0] for _ in range(2)]
    for number in busy:
        router.prefilled(number)
    assert send(router, LONG)[1].replica == 0  # waits for a row, for 600
    assert send(router, LONG)[1].replica == 1


def test_prompts_that_wait_count_until_their_first_token() -> None:
    router = Router(2, priced(0))
    long, choice = send(router, "x" * 4000)
    assert choice.replica == 0
    _, other = send(router, "y" * 400)
    assert other.replica == 1
    assert send(router, "z" * 400)[1].replica == 1
    router.prefilled(long)
    assert send(router, "z" * 40)[1].replica == 0


def test_what_is_told_of_a_prompt_corrects_the_estimate() -> None:
    router = Router(2, priced(0))
    number, choice = send(router, "x" * 4000)
    assert (choice.replica, choice.tokens) == (0, 1000)
    assert send(router, array("i", range(100)).tobytes())[1].replica == 1
    router.accepted(number, 90)
    assert send(router, array("i", range(1)).tobytes())[1].replica == 0


def test_bytes_per_token_are_learned_from_texts() -> None:
    router = Router(2, Weights())
    for _ in range(20):
        number, _ = send(router, "a" * 800)
        router.accepted(number, 400)
    assert send(router, "b" * 800)[1].tokens == pytest.approx(400, rel=0.1)
    assert send(router, array("i", range(100)).tobytes())[1].tokens == 100


def test_less_in_the_cache_than_expected_makes_it_forget_all_that_is_older() -> None:
    router = Router(2, priced(0))
    old, new = LONG, LONG.upper()
    serve(router, old, allowed=[0])
    serve(router, new, allowed=[0])
    serve(router, "of the same time as nothing else " * 50, allowed=[0])
    number, choice = send(router, new)
    assert choice.replica == 0
    router.accepted(number, choice.tokens)
    router.started(number, 0)
    router.prefilled(number)
    router.finished(number)
    assert picked(router, new).expected_cached > 0  # it has been computed since
    assert picked(router, "of the same time as nothing else " * 50).expected_cached > 0
    assert picked(router, old).expected_cached == 0


def test_less_than_expected_says_nothing_while_the_prompt_before_is_not_computed() -> None:
    router = Router(2, priced(0))
    serve(router, LONG.upper(), allowed=[0])
    first, _ = send(router, LONG, allowed=[0])
    second, choice = send(router, LONG, allowed=[0])
    assert choice.expected_cached > 0
    router.started(first, 0)
    router.started(second, 0)
    assert picked(router, LONG.upper(), [0]).expected_cached > 0


def test_a_little_less_than_expected_is_no_eviction() -> None:
    router = Router(2, priced(0))
    serve(router, LONG.upper(), allowed=[0])
    serve(router, LONG, allowed=[0])
    number, choice = send(router, LONG)
    router.started(number, choice.expected_cached - 40)
    assert picked(router, LONG.upper()).expected_cached > 0


def test_a_request_that_ended_before_its_first_token_leaves_nothing_behind() -> None:
    router = Router(2, priced(0))
    number, choice = send(router, LONG)
    router.finished(number)
    assert picked(router, LONG).expected_cached == 0
    first, _ = send(router, LONG, allowed=[1])
    second, _ = send(router, LONG, allowed=[1])
    router.finished(first)
    assert picked(router, LONG).replica == 1  # the second one will compute it
    assert choice.replica == 0
    router.finished(second)
    assert {send(router, "?")[1].replica for _ in range(2)} == {0, 1}  # and no load


def test_requests_of_other_routers_count() -> None:
    router = Router(3, priced(4))
    router.elsewhere(0, 2)
    router.elsewhere(2, 90)
    assert [send(router)[1].replica for _ in range(4)] == [1, 1, 0, 1]
    router.replica_down(2)
    router.replica_up(2)  # of the new one nothing was said yet
    assert send(router)[1].replica == 2


def test_routers_may_begin_at_different_replicas() -> None:
    router = Router(3, Weights(), first=2)
    assert [send(router)[1].replica for _ in range(4)] == [2, 0, 1, 2]


def test_choices_of_one_prompt_are_requests_of_their_own() -> None:
    router = Router(2, priced(4))
    choice = picked(router, "?" * 40)
    router.sent(choice, [1001, 1002, 1003])
    assert [send(router, "!")[1].replica for _ in range(5)] == [1, 1, 1, 1, 1]
    for number in (1001, 1002, 1003):
        router.prefilled(number)
        router.finished(number)
    assert [send(router, "!")[1].replica for _ in range(3)] == [0, 0, 0]


def test_a_request_that_is_sent_again_counts_once() -> None:
    router = Router(2, priced(4))
    for _ in range(5):
        router.sent(picked(router, "?", allowed=[0]), [77])
    router.finished(77)
    router.finished(77)
    assert [send(router)[1].replica for _ in range(4)] == [1, 0, 1, 0]


def test_what_was_generated_is_computed_again_elsewhere() -> None:
    router = Router(2, Weights())
    choice = router.pick("?" * 40, output=500)
    assert choice is not None
    assert choice.tokens == 510


def test_only_replicas_that_are_up_and_allowed_are_picked() -> None:
    router = Router(3, Weights())
    assert {serve(router, "?", allowed=[0, 2]).replica for _ in range(4)} == {0, 2}
    router.replica_down(2)
    assert {serve(router, "?", allowed=[0, 2]).replica for _ in range(4)} == {0}
    router.replica_down(0)
    assert {serve(router, "?").replica for _ in range(4)} == {1}
    assert router.pick("?", allowed=[0, 2]) is None
    assert router.pick("?", allowed=[]) is None
    router.replica_up(2)
    assert serve(router, "?", allowed=[0, 2]).replica == 2


def test_none_of_those_that_are_left_out_is_picked() -> None:
    router = Router(3, Weights())
    serve(router, LONG, allowed=[1])
    choice = router.pick(LONG, without={1})
    assert choice is not None
    assert choice.replica != 1
    assert choice.expected_cached == 0
    router.replica_down(0)
    assert {picked(router, LONG, without={1}).replica for _ in range(3)} == {2}
    assert router.pick(LONG, without=[1, 2]) is None
    assert router.pick(LONG, allowed=[1, 2], without=[1, 2]) is None
    alone = Router(1, Weights())
    assert alone.pick(LONG, without=[0]) is None


@pytest.mark.parametrize("replicas", [2, 9, 64, 1000])
def test_of_many_replicas_the_one_that_knows_most_of_a_prompt_is_found(replicas: int) -> None:
    """All know its beginning, some more of it, one the most."""
    router = Router(replicas, priced(0))
    for number in range(replicas):
        serve(router, LONG, allowed=[number])
    for number in range(0, replicas, 3):
        serve(router, LONG + "1" * 640, allowed=[number])
    serve(router, LONG + "1" * 1280, allowed=[replicas - 1])
    choice = picked(router, LONG + "1" * 1280 + "2" * 64)
    assert (choice.replica, choice.matched) == (replicas - 1, (len(LONG) + 1280) // 64)
    others = picked(router, LONG + "1" * 640, without=[replicas - 1])
    assert (others.replica % 3, others.matched) == (0, (len(LONG) + 640) // 64)


def test_a_replica_that_went_down_comes_back_empty() -> None:
    router = Router(2, priced(4))
    serve(router, LONG, allowed=[0])
    there = [send(router, LONG, allowed=[0])[0] for _ in range(3)]
    elsewhere, _ = send(router, "?", allowed=[1])
    assert router.replica_down(0) == there
    router.replica_up(0)
    choice = picked(router, LONG)
    assert (choice.replica, choice.expected_cached) == (0, 0)
    for number in [*there, elsewhere]:  # what still arrives of them is ignored
        router.accepted(number, 5)
        router.started(number, 5)
        router.prefilled(number)
        router.finished(number)
    assert [send(router)[1].replica for _ in range(4)] == [1, 0, 1, 0]


def test_with_one_replica_nothing_is_hashed_or_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(routing, "chain_of", never)
    router = Router(1, Weights())
    assert serve(router, LONG).replica == 0
    send(router, LONG)
    assert router.replica_down(0) == []
    assert router.pick(LONG) is None


def test_texts_without_a_utf8_form_are_routed_like_others() -> None:
    assert serve(Router(2, Weights()), "\ud800" * 100).replica == 0  # they are refused later

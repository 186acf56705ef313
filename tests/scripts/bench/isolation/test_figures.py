"""The arithmetic of bench-isolation, its bodies, and its sink."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from argparse import ArgumentTypeError

import orjson
import pytest

from scripts.bench.isolation import __main__ as main
from scripts.bench.isolation.attacker import Campaign
from scripts.bench.isolation.attacks import Churn, Field, Repeat, Sent, Stay, status_of
from scripts.bench.isolation.bystander import Observation, Probe, Probes
from scripts.bench.isolation.figures import Harm, Round, Row, harm, longest_gap_s, table
from scripts.bench.isolation.kinds import BY_NAME, KINDS, choose
from scripts.bench.isolation.sink import serve_sink
from scripts.bench.isolation.stands import DEMO, EMULATED, USUAL, Facts, stands_of
from scripts.lab.workers import ask, worker
from scripts.verify.survival.streams import Stream
from tests.scripts.bench.isolation.progress import progress

FACTS = Facts(max_length=131_072, prompt_tokens=131_071, prompt_chars=16 * 131_072, body_bytes=4 << 20)


def whole(*times_s):
    return Stream(times_s=[*times_s], reason="length")


def cut(*times_s, error="the connection broke"):
    return Stream(times_s=[*times_s], error=error)


# ---- gaps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracks", "gap_s"),
    [
        ([cut(0, 1, 5, 6, error="")], 4),
        ([cut(0, 4, 5, 6, error="")], 2),  # the gap before the attack does not count, nor one that ended with it
        ([cut(3.5, 5, error="")], 3),  # still open at the end
        ([whole(4, 4.5), cut(7, 7.5, 8, error="")], 0.5),  # between two whole streams there is no gap
        ([cut(3, 4.5), cut(7, 8, error="")], 2.5),  # one that broke stands still until the next has a token
        ([cut(3, 4.5), cut(), cut(7.5, 8, error="")], 3),
        ([cut(3, 4.5), cut()], 3.5),
        ([], 0),
    ],
)
def test_the_longest_gap(tracks, gap_s):
    assert longest_gap_s(tracks, begin_s=4, end_s=8) == gap_s


def test_harm_is_the_longest_of_each_and_counts_failures():
    seen = Observation(
        0, 3, (cut(0, 1), cut(2, 3, error="")), (Probe(0, 0.25), Probe(1, 0.5, "reset")), (Probe(0, 0.125),)
    )
    assert harm(seen) == Harm(gap_ms=1000, health_ms=500, first_token_ms=125, failed=2)
    assert harm(seen, killed=True).failed == 1  # the stream


# ---- differences -------------------------------------------------------------------------------------------------


def row(*gaps, emulated=True, failed=0, restarts=0):
    """Of gaps under attack, where it is 20 ms beside the sink."""
    rounds = [Round(Harm(gap, 5, 9, failed), Harm(20, 2, 10), restarts, {200: 3, 0: 1}) for gap in gaps]
    return Row("x", "a title", "device", emulated, tuple(rounds))


def test_differences_are_medians_over_rounds_of_attack_less_sink():
    spread = row(30, 120, 70).spread("gap_ms")
    assert (spread.median, spread.low, spread.high) == (50, 10, 100)
    assert row(30, 120, 70).spread("first_token_ms").median == -1


def test_what_misses_the_goal_is_marked():
    assert not row(30, 120, 70).missed
    assert row(30, 120, 71).missed == ("gap_ms",)
    assert not row(30, 120, 71, emulated=False).missed
    assert row(30, failed=1, restarts=2, emulated=False).missed == ("failed", "restarts")
    assert Row("x", "t", "d", True, (), "no stream").missed == ("broken",)
    lingering = Row("x", "t", "d", True, (Round(Harm(1, 1, 1), Harm(1, 1, 1), lingers=True),))
    assert lingering.missed == ("lingers",)
    assert "goes on when the client is gone" in table([lingering])


def test_the_table_is_markdown_with_one_part_per_device():
    told = table([row(30, 120, 71), Row("y", "another", "a second device", False, (), "no stream")])
    first, second = told.split("\n\n")
    assert (
        "| a title | **51 (10 … 100)** | 3 (3 … 3) | -1 (-1 … -1) | 0 | 0 | none: 3, 200: 9 | **missed** |" in first
    )
    assert "| another | - | - | - | 0 | 0 |  | no stream |" in second
    assert {line.count("|") for line in told.splitlines() if line} == {9}


def test_what_is_told_is_json():
    told = json.loads(json.dumps(row(30, 120, 71).as_json()))
    assert told["differences"]["gap_ms"] == {"median": 51, "low": 10, "high": 100}
    assert told["missed"] == ["gap_ms"]
    assert told["rounds"][0]["attack"]["gap_ms"] == 30


# ---- progress ----------------------------------------------------------------------------------------------------


def test_a_stream_that_stands_while_requests_are_worked_off_does_not_go_on():
    sent = [Sent(0, 1.0, 1.9, 200), Sent(0, 2.0, 2.9, 200)]
    steady = [0.5 + 0.1 * i for i in range(30)]
    burst = [0.5, 1.0, *[1.91] * 50, 1.95, *[2.91] * 50]
    assert progress([cut(*steady)], sent, 0.1).goes_on
    assert not progress([cut(*burst)], sent, 0.1).goes_on
    assert not progress([cut(*steady)], [], 0.1).goes_on  # nothing was asked, so nothing is shown


# ---- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bodies_keep_to_the_limit_and_are_what_they_say(kind):
    for request in kind.requests(FACTS):
        head, _, body = request.partition(b"\r\n\r\n")
        if not request.startswith(b"POST"):
            assert not body
            continue
        assert f"content-length: {len(body)}".encode() in head
        assert len(body) <= FACTS.body_bytes
        if kind.name != "json-deep":
            assert isinstance(orjson.loads(body), dict)


def test_kinds_are_chosen_by_name():
    assert main.parse([]).kinds == KINDS
    assert [kind.name for kind in choose("idle,churn")] == ["idle", "churn"]
    assert len({kind.name for kind in KINDS}) == len({kind.title for kind in KINDS}) == len(KINDS)
    with pytest.raises(ArgumentTypeError, match="unknown kind of request 'nosuch'; there are tokenize-words"):
        choose("nosuch")


def test_every_kind_has_a_server():
    assert {kind.stand for kind in KINDS} == set(stands_of(EMULATED))
    assert stands_of(EMULATED)[USUAL].facts.prompt_chars == 16 * 131_072
    assert not stands_of(DEMO)[USUAL].emulated


@pytest.mark.parametrize("arguments", [["--kinds", "nosuch"], ["--rounds", "-1"], ["--seconds", "-1"]])
def test_wrong_arguments_are_named(arguments, capsys):
    with pytest.raises(SystemExit):
        main.parse(arguments)
    assert arguments[0] in capsys.readouterr().err


# ---- the attacker and the sink -----------------------------------------------------------------------------------


def test_the_same_again_at_the_same_times():
    sent = (Sent(1, 10.5, 11, 200), Sent(0, 10.25, 10.5, 200), Sent(1, 10.125, 10.25, 0))
    assert Campaign(10, 12, sent).pace == [[0.25], [0.125, 0.5]]
    assert Campaign(10, 12, ()).pace == []


def test_a_status_is_read_only_from_an_answer():
    assert [status_of(head) for head in (b"HTTP/1.1 413 Too", b"", b"HTTP", b"nonsense 200 x")] == [413, 0, 0, 0]


@pytest.fixture(scope="module")
def sink_port():
    with worker(serve_sink) as sink:
        yield ask(sink, "port")


def attack(form, port, requests, seconds, pace=None):
    async def run():
        field = Field(port, requests, pace, time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await form.prepare(field)
                await form.run(field)
        except TimeoutError:
            pass
        finally:
            opened = len(field.connections)
            field.close()
        return field.sent, opened

    return asyncio.run(run())


def test_the_sink_reads_a_request_whole_and_answers(sink_port):
    request = BY_NAME["tokenize-words"].requests(FACTS)[0]
    with socket.create_connection(("127.0.0.1", sink_port)) as connection:
        connection.sendall(request[:-1])
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(None)
        connection.sendall(request[-1:])
        assert connection.recv(100).endswith(b"{}")
        assert connection.recv(1) == b""


def test_a_pace_is_kept_and_then_nothing_more_is_sent(sink_port):
    request = BY_NAME["detokenize"].requests(FACTS)
    sent, opened = attack(Repeat(2), sink_port, request, 30, pace=[[0.0, 0.05], [0.02]])
    assert sorted(each.client for each in sent) == [0, 0, 1]
    assert {each.status for each in sent} == {200}
    assert opened == 0


@pytest.mark.parametrize("form", [Repeat(), Repeat(pause_s=0.0001), Churn(1), Stay(3), Stay(3, early=True)])
def test_every_form_of_attack_reaches_the_sink(form, sink_port):
    requests = BY_NAME["byte-writers"].requests(FACTS)
    for seconds in (0.3, 5.0):  # a busy machine may need longer for one answer
        sent, _ = attack(form, sink_port, requests, seconds)
        if isinstance(form, Churn) or any(each.status for each in sent):
            break
    assert sent
    assert {each.status for each in sent} <= ({0} if isinstance(form, Churn) else {0, 200})
    assert isinstance(form, Churn) or any(each.status for each in sent)


def test_nobody_there_is_told_and_not_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sent, _ = attack(Repeat(), port, (b"GET / HTTP/1.1\r\n\r\n",), 0.2)
    assert {each.status for each in sent} == {0}


def test_probes_go_on_whatever_becomes_of_those_before():
    """The first is answered last; one that fails says so."""

    async def run():
        release, asked = asyncio.Event(), []

        async def question():
            asked.append(None)
            if len(asked) == 1:
                await release.wait()
                return ""
            release.set()
            return "refused"

        probes = Probes(0.001, question)
        await release.wait()
        probes.stop()
        return await probes.results()

    first, second, *_ = asyncio.run(run())
    assert (first.error, second.error) == ("", "refused")
    assert first.begin_s < second.begin_s
    assert first.seconds > 0

"""Requests for several texts: their streams are merged, and all are served or none."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import signal
import time

import pytest

from tests.pipeline.front.api.openai.test_completions import events
from tests.pipeline.front.conftest import post, read_all, read_until
from tests.pipeline.front.http.test_connection import narrow

COMPLETIONS = "/v1/completions"


def texts(chunks):
    """What each choice comes to, by index."""
    joined = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        joined[choice["index"]] = joined.get(choice["index"], "") + choice.get("text", "")
    return joined


def submitted(served, count):
    return [served.peer.expect("submit") for _ in range(count)]


@pytest.mark.parametrize("pace", ["", " @pace=0.002", " @burst"])
def test_choices_of_several_prompts_whole_and_streamed(shared, pace):
    prompts = [f"{word} b c{pace}" for word in ("x", "y", "z")]
    body = {"n": 2, "max_tokens": 20}
    whole = shared.complete(prompts, **body).json()
    assert [choice["index"] for choice in whole["choices"]] == list(range(6))
    assert [choice["text"][0] for choice in whole["choices"]] == list("xxyyzz")
    assert {choice["text"].count(" ") for choice in whole["choices"]} == {19}
    assert whole["usage"]["prompt_tokens"] == 3 * 5
    assert whole["usage"]["completion_tokens"] == 6 * 20
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 3 * 2}
    *chunks, last = events(shared.complete(prompts, stream=True, stream_options={"include_usage": True}, **body))
    assert texts(chunks) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == list(range(6))
    assert last["usage"] == whole["usage"]
    assert {chunk["id"] for chunk in chunks} == {last["id"]}


def test_parts_of_different_lengths(shared):
    prompts = [f"a b @after={count} @reason=eos" for count in (3, 1, 7, 2)]
    whole = shared.complete(prompts, max_tokens=9).json()
    assert [len(choice["text"].split()) for choice in whole["choices"]] == [3, 1, 7, 2]
    chunks = events(shared.complete(prompts, max_tokens=9, stream=True))
    assert {index: len(text.split()) for index, text in texts(chunks).items()} == {0: 3, 1: 1, 2: 7, 3: 2}


def test_each_choice_has_the_next_seed(serve):
    served = serve()
    for seed, wanted in [(5, [5, 6, 7]), (2**64 - 1, [2**64 - 1, 0, 1])]:
        served.complete(["p", "q"], n=3, seed=seed, max_tokens=1)
        assert [seen["seed"] for seen in submitted(served, 6)] == wanted * 2
    for seed in (None, -1):
        served.complete(["p", "q"], n=3, seed=seed, max_tokens=1)
        assert len({seen["seed"] for seen in submitted(served, 6)}) == 6  # drawn, for each one of its own
    served.chat("p", n=2, seed=-2, max_tokens=1)
    assert [seen["seed"] for seen in submitted(served, 2)] == [-2, 2**64 - 1]


def test_log_probabilities_of_each_choice(shared):
    choices = shared.complete(["a", "b"], n=2, max_tokens=3, logprobs=1).json()["choices"]
    assert [len(choice["logprobs"]["tokens"]) for choice in choices] == [3] * 4
    assert len({json.dumps(choice["logprobs"]) for choice in choices}) == 1


def test_many_such_requests_at_once(shared):
    def ask(i):
        words = [f"w{i}.{k}" for k in range(4)]
        answer = shared.complete(words, max_tokens=3, stream=i % 2 == 0)
        chunks = events(answer) if i % 2 == 0 else [answer.json()]
        return texts(chunks) == {k: " ".join([word] * 3) for k, word in enumerate(words)}

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(48)))
    assert shared.metric("ringserve_requests_in_flight") == 0


def test_a_client_that_reads_slowly_gets_all_tokens_in_their_order(shared):
    """Tokens are passed on while it keeps up, wait while it does not, and come from several texts at once."""
    letters = {index: [f"{name}{i}" * 2000 for i in range(7)] for index, name in enumerate("xyz")}
    prompts = [" ".join(words) + f" @pace=0.000{index}" for index, words in letters.items()]
    with narrow(shared) as connection:
        body = {"prompt": prompts, "max_tokens": 400, "stream": True}
        connection.sendall(post(body, COMPLETIONS, headers="Connection: close\r\n"))
        time.sleep(0.3)  # the kernel's buffers are full by then
        data = read_all(connection)
    lines = b"".join(data.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]).decode()
    *parts, done = [line.removeprefix("data: ") for line in lines.splitlines() if line]
    assert done == "[DONE]"
    wanted = {index: " ".join(words[i % 7] for i in range(400)) for index, words in letters.items()}
    assert texts(map(json.loads, parts)) == wanted


# ---- none remains -------------------------------------------------------------------------------------------


def test_one_that_is_refused_takes_all_with_it(serve):
    """A refusal is told with its status, even where another part has tokens already."""
    served = serve()
    for place, stream in itertools.product((0, 1, 3), (True, False)):
        prompts = ["a @pace=0.001"] * 4
        prompts[place] = "@refuse=429"
        answer = served.complete(prompts, max_tokens=4000, stream=stream)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        requests = {seen["submit"] for seen in submitted(served, 4)}
        assert {served.peer.expect("cancel") for _ in range(4)} == requests
        assert served.metric("ringserve_requests_in_flight") == 0
    assert served.metric("ringserve_requests_total", outcome="rejected") == 6 * 4


def test_a_client_that_leaves_takes_all_with_it(serve):
    served = serve()
    for stream in (True, False):
        with served.connect() as connection:
            prompt = "a @pace=0.005" if stream else "@hang"
            body = {"prompt": [prompt] * 3, "n": 2, "max_tokens": 4000, "stream": stream}
            connection.sendall(post(body, COMPLETIONS))
            requests = {seen["submit"] for seen in submitted(served, 6)}
            if stream:
                read_until(connection, b"text_completion")
        assert {served.peer.expect("cancel") for _ in range(6)} == requests
    assert served.metric("ringserve_requests_in_flight") == 0
    assert served.metric("ringserve_requests_total", outcome="cancelled") == 12


def test_a_part_that_fails_ends_the_stream_and_the_others(serve):
    served = serve()
    body = {"prompt": ["a @after=3 @reason=failed @pace=0.01", "b @pace=0.005"], "max_tokens": 4000, "stream": True}
    *chunks, last = events(served.complete(**body))
    assert last["error"]["type"] == "server_error"
    assert texts(chunks)[0] == "a a"
    requests = {seen["submit"] for seen in submitted(served, 2)}
    assert {served.peer.expect("cancel") for _ in range(2)} == requests
    assert served.metric("ringserve_requests_in_flight") == 0


def test_whole_answers_fail_with_a_status(shared):
    answer = shared.complete(["a", "b @after=3 @reason=failed"], max_tokens=9)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")


@pytest.mark.parametrize("stream", [True, False])
def test_a_time_limit_counts_for_all(serve, stream):
    served = serve(request_timeout_s=0.3)
    answer = served.complete(["a @after=2", "@hang"], stream=stream)
    if stream:
        assert events(answer)[-1]["error"]["type"] == "timeout_error"
    else:
        assert answer.status_code == 504
    requests = {seen["submit"] for seen in submitted(served, 2)}
    assert served.peer.expect("cancel") in requests


def test_all_parts_go_on_when_a_stage_was_replaced(serve):
    served = serve()
    prompts = ["a b c @pace=0.002", "d e f @pace=0.003"]
    with served.connect() as connection:
        body = {"prompt": prompts, "max_tokens": 200, "stream": True}
        connection.sendall(post(body, COMPLETIONS, headers="Connection: close\r\n"))
        begun = b""
        while not (b'"index":0' in begun and b'"index":1' in begun):
            begun += read_until(connection, b"text_completion")
        requests = [seen["submit"] for seen in submitted(served, 2)]
        served.end_generation()
        served.wire()
        again = submitted(served, 2)
        assert [seen["submit"] for seen in again] == requests
        assert all(seen["resumed"] and seen["output"] for seen in again)
        chunks = b"".join(read_all(connection).split(b"\r\n")[1::2])
    ended = [json.loads(line[6:]) for line in chunks.splitlines() if b'"finish_reason":"length"' in line]
    assert sorted(chunk["choices"][0]["index"] for chunk in ended) == [0, 1]
    assert chunks.endswith(b"data: [DONE]\n\n")
    assert served.metric("ringserve_requests_resumed_total") == 2


# ---- room ---------------------------------------------------------------------------------------------------


def test_parts_that_are_more_than_the_ring_holds_wait_for_room(serve):
    served = serve(ring_bytes=4096)
    os.kill(served.peer.pid, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(served.complete, ["word " * 50] * 20, max_tokens=1)
            time.sleep(0.2)  # the ring is full long before that
            assert not asked.done()
            os.kill(served.peer.pid, signal.SIGCONT)
            assert len(asked.result().json()["choices"]) == 20
    finally:
        os.kill(served.peer.pid, signal.SIGCONT)


def test_a_client_that_leaves_while_parts_wait_for_room(serve):
    """What was sent is cancelled, the rest never sent."""
    served = serve(ring_bytes=4096)
    os.kill(served.peer.pid, signal.SIGSTOP)
    try:
        with served.connect() as connection:
            connection.sendall(post({"prompt": ["@hang " + "word " * 50] * 20}, COMPLETIONS))
            deadline = time.monotonic() + 10
            while served.metric("ringserve_requests_in_flight") < 20:
                assert time.monotonic() < deadline
        while served.metric("ringserve_requests_in_flight"):
            assert time.monotonic() < deadline
    finally:
        os.kill(served.peer.pid, signal.SIGCONT)
    cancelled = [served.peer.expect("cancel") for _ in range(20)]
    assert len(set(cancelled)) == 20
    assert served.complete(["a", "b"], max_tokens=1).status_code == 200
    assert served.metric("ringserve_requests_in_flight") == 0


def test_more_than_may_be_in_flight_is_refused_at_once(serve):
    served = serve(max_queue=40, max_rows=1)  # 105 may be in flight
    with served.connect() as first, served.connect() as second:
        for connection in (first, second):
            connection.sendall(post({"prompt": ["@hang"] * 40}, COMPLETIONS))
            submitted(served, 40)
        assert served.complete(["never"] * 26).status_code == 429
        assert len(served.complete(["a"] * 25, max_tokens=1).json()["choices"]) == 25
    assert {seen["prompt"] for seen in submitted(served, 25)} == {"a"}


def test_a_giant_among_them_keeps_all_out(serve):
    served = serve(ring_bytes=4096)
    answer = served.complete(["a", "x" * 5000])
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "prompt")
    assert served.complete("b", max_tokens=1).status_code == 200
    assert served.peer.expect("submit")["prompt"] == "b"


def test_each_part_counts_as_a_request(serve):
    served = serve()
    served.complete(["a", "b", "c"], max_tokens=4)
    assert served.metric("ringserve_requests_total", outcome="length") == 3
    assert served.metric("ringserve_generation_tokens_total") == 12
    assert served.metric("ringserve_prompt_tokens_total") == 15
    assert served.metric("ringserve_time_to_first_token_seconds_count") == 3

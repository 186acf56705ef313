"""Streams that go on when what is behind the front has died: nothing missing, nothing twice, or a clear error."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import time

import pytest

from pipeline.stats import Supervision
from tests.pipeline.front.conftest import post, read_all, read_until

STREAM = "/models/llama2/generate_stream"
COMPLETIONS = "/v1/completions"
ENDLESS = "a b c @pace=0.002"


def body_of(answer: bytes) -> list[str]:
    """Lines of the body of a chunked answer."""
    chunks = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")
    return [line for line in b"".join(chunks[1::2]).decode().splitlines() if line]


def events(answer: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body_of(answer)]


def text_of(answer: bytes) -> str:
    *parts, done = events(answer)
    assert done == "[DONE]"
    return "".join(choice["text"] for part in parts for choice in json.loads(part)["choices"])


def words(count: int) -> str:
    return " ".join("abc"[i % 3] for i in range(count))


def test_streams_go_on_where_they_stood(serve):
    """Both APIs, streamed and whole, one with an adapter, with three generations of rings."""
    served = serve(adapters=["fine"])
    head = "Connection: close\r\n"
    with served.connect() as llm, served.connect() as openai, served.connect() as whole:
        llm.sendall(post({"inputs": ENDLESS, "parameters": {"max_new_tokens": 300}}, STREAM, head))
        counted = {"stream": True, "stream_options": {"include_usage": True}, "model": "fine"}
        openai.sendall(post({"prompt": ENDLESS, "max_tokens": 300, **counted}, COMPLETIONS, head))
        whole.sendall(post({"inputs": ENDLESS, "parameters": {"max_new_tokens": 300}}, headers=head))
        first = {(seen := served.peer.expect("submit"))["submit"]: seen for _ in range(3)}
        assert sorted(seen["adapter"] for seen in first.values()) == ["", "", "fine"]
        for attempt in (1, 2):
            time.sleep(0.2)
            served.end_generation()
            served.wire()
            for request, before in first.items():
                seen = served.peer.expect("submit")
                assert seen["submit"] == request  # in order of arrival
                output = seen["output"]
                assert output == [100 + i % 50 for i in range(len(output))]
                assert len(output) > 0
                changes = {"output": output, "resumed": True, "attempt": attempt}
                assert seen == before | changes
        lines = [json.loads(line) for line in body_of(read_all(llm))]
        assert [line["data"]["tokens"]["id"] for line in lines] == [100 + i % 50 for i in range(300)]
        answer = read_all(openai)
        assert text_of(answer) == words(300)
        usage = json.loads(events(answer)[-2])["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 300)
        assert usage["prompt_tokens_details"] == {"cached_tokens": 2}
        answer = json.loads(read_all(whole).partition(b"\r\n\r\n")[2])
        assert (answer["generated_text"], answer["generated_tokens"]) == (words(300), 300)
    assert served.metric("ringserve_requests_resumed_total") == 6
    assert served.metric("ringserve_requests_in_flight") == 0


SAYS = (
    'x @pace=0.02 <think> So it is </think> Well: <tool_call>{"name": "f", "arguments": {"a": [1, "b"]}}</tool_call>'
    ' <tool_call> {"name": "g", "arguments": {}} </tool_call>'
)
TOOLS = [{"type": "function", "function": {"name": name}} for name in "fg"]


def messages_of(answer: bytes):
    """Of two choices, from their deltas: reasoning, text, calls, log-probabilities."""
    made = [["", "", [], []] for _ in range(2)]
    for event in events(answer)[:-1]:
        for choice in json.loads(event)["choices"]:
            one, delta = made[choice["index"]], choice["delta"]
            one[0] += delta.get("reasoning_content", "")
            one[1] += delta.get("content", "")
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    one[2].append([call["function"]["name"], ""])
                one[2][call["index"]][1] += call["function"]["arguments"]
            one[3] += [token["logprob"] for token in (choice["logprobs"] or {"content": []})["content"]]
    return made


def test_reasoning_and_calls_go_on_where_they_stood(serve):
    """Whichever token the pipeline dies behind."""
    served = serve(formats=["hermes", "think"])
    body = {"messages": [{"role": "user", "content": SAYS}], "tools": TOOLS, "n": 2, "logprobs": True, "stream": True,
            "max_tokens": 60}  # fmt: skip
    with served.connect() as stream:
        stream.sendall(post(body, "/v1/chat/completions", "Connection: close\r\n"))
        undisturbed = messages_of(read_all(stream))
    for reasoning, text, calls, logprobs in undisturbed:
        assert "So it is" in reasoning
        assert "Well:" in text
        assert calls[:2] == [["f", '{"a": [1, "b"]}'], ["g", "{}"]]
        assert len(logprobs) == 60
    for _ in range(2):
        served.peer.expect("submit")
    with served.connect() as stream:
        stream.sendall(post(body, "/v1/chat/completions", "Connection: close\r\n"))
        for _ in range(2):
            served.peer.expect("submit")
        cuts = []
        for _ in range(6):
            time.sleep(0.12)
            served.end_generation()
            served.wire()
            cuts += [len(served.peer.expect("submit")["output"]) for _ in range(2)]
        assert messages_of(read_all(stream)) == undisturbed
    assert len(set(cuts)) > 2


def test_a_seed_that_nobody_gave_is_drawn_once(serve):
    served = serve()
    with served.connect() as connection:
        connection.sendall(post({"prompt": "@hang", "temperature": 1, "stream": True}, COMPLETIONS))
        seed = served.peer.expect("submit")["seed"]
        served.end_generation()
        served.wire()
        assert served.peer.expect("submit")["seed"] == seed


def test_requests_that_come_meanwhile_wait_for_the_next_rings(serve):
    served = serve()
    with concurrent.futures.ThreadPoolExecutor(6) as pool, served.connect() as early:
        early.sendall(post({"inputs": "first @hang"}, STREAM))
        served.peer.expect("submit")
        served.end_generation()
        assert served.http.get("/ready").status_code == 503
        asked = []
        for i in range(5):
            asked.append(pool.submit(served.generate, f"w{i} x", max_new_tokens=2))
            deadline = time.monotonic() + 10
            while served.metric("ringserve_requests_in_flight") < 2 + i:
                assert time.monotonic() < deadline
        served.wire()
        assert [served.peer.expect("submit")["prompt"] for _ in range(6)] == [
            "first @hang",
            *(f"w{i} x" for i in range(5)),
        ]
        assert [future.result().json()["generated_text"] for future in asked] == [f"w{i} x" for i in range(5)]


def test_a_front_that_is_new_knows_that_others_were_ready_before_it(serve):
    """Its clients wait for its first rings, as they would for any others."""
    served = serve(wired=False)
    Supervision(served.stats).set_generation(0, 3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.generate, "a b", max_new_tokens=2)
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight") < 1:
            assert time.monotonic() < deadline
        served.wire()
        assert asked.result().json()["generated_text"] == "a b"


def test_a_client_that_leaves_meanwhile_is_forgotten(serve):
    served = serve()
    with served.connect() as stays:
        with served.connect() as leaves:
            leaves.sendall(post({"inputs": "leaves @hang"}, STREAM))
            assert served.peer.expect("submit")["prompt"] == "leaves @hang"
            stays.sendall(post({"inputs": "stays @hang"}, STREAM))
            served.peer.expect("submit")
            served.end_generation()
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight") > 1:
            assert time.monotonic() < deadline
        served.wire()
        assert served.peer.expect("submit")["prompt"] == "stays @hang"
        assert served.generate("a", max_new_tokens=1).status_code == 200
        assert served.peer.expect("submit")["prompt"] == "a"


def test_many_that_go_on_through_a_small_ring(serve):
    """They wait for room in order; those that come or leave meanwhile keep their place, too."""
    served = serve(ring_bytes=4096)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(60)]
        for i, connection in enumerate(connections):
            connection.sendall(post({"inputs": f"{i} @hang"}, STREAM))
            assert served.peer.expect("submit")["prompt"] == f"{i} @hang"
        served.end_generation()
        served.wire(stopped=True)
        late = stack.enter_context(served.connect())
        late.sendall(post({"inputs": "late @hang"}, STREAM))
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight") < 61:
            assert time.monotonic() < deadline
        connections[50].close()
        while served.metric("ringserve_requests_in_flight") > 60:
            assert time.monotonic() < deadline
        served.peer.process.send_signal(signal.SIGCONT)
        wanted = [f"{i} @hang" for i in range(60) if i != 50]
        assert [served.peer.expect("submit")["prompt"] for _ in range(60)] == [*wanted, "late @hang"]


def test_the_next_generation_ends_while_requests_wait_for_room(serve):
    served = serve(ring_bytes=4096)
    with contextlib.ExitStack() as stack:
        for i in range(60):
            connection = stack.enter_context(served.connect())
            connection.sendall(post({"inputs": f"{i} @hang"}, STREAM))
            served.peer.expect("submit")
        for stopped in (True, True, False):
            served.end_generation()
            served.wire(stopped=stopped)
        assert [served.peer.expect("submit")["prompt"] for _ in range(60)] == [f"{i} @hang" for i in range(60)]


def test_a_request_that_outgrew_the_ring_ends_with_an_error(serve):
    served = serve(ring_bytes=4096)
    long = "x" * 1300 + " @pace=0.002"
    with served.connect() as connection, served.connect() as other:
        connection.sendall(post({"prompt": long, "max_tokens": 4000, "stream": True}, COMPLETIONS))
        other.sendall(post({"prompt": "a b c @hang", "max_tokens": 5, "stream": True}, COMPLETIONS))
        read_until(connection, b"data: ")
        time.sleep(1.0)
        served.end_generation()
        served.wire()
        tail = read_until(connection, b"[DONE]").decode()
        assert "too large to be resumed after a restart" in tail
        assert "server_error" in tail
        assert served.peer.expect("submit")["prompt"] == "a b c @hang"


@pytest.mark.parametrize("fault", ["skip", "twice"])
def test_a_gap_and_a_double_are_told_and_not_passed_on(serve, fault):
    """They can't happen; but then a client must not take the text for the whole one."""
    served = serve()
    text = served.complete(f"a b c @{fault}=7", max_tokens=30, stream=True).text
    *parts, error, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert "".join(json.loads(part)["choices"][0]["text"] for part in parts) == words(7)
    assert json.loads(error)["error"]["type"] == "server_error"
    assert done == "[DONE]"
    came = 9 if fault == "skip" else 7
    assert f"received token {came} after token 7" in served.front.log("received token")
    answer = served.generate(f"a b c @{fault}=7 @pace=0.01", max_new_tokens=1000)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    served.peer.expect("cancel")


def test_a_request_that_is_refused_when_it_comes_again(serve):
    served = serve()
    with served.connect() as stream, served.connect() as whole, served.connect() as llm:
        stream.sendall(post({"prompt": "a b c @pace=0.01 @poison", "max_tokens": 900, "stream": True}, COMPLETIONS))
        whole.sendall(post({"prompt": "a b c @pace=0.01 @poison", "max_tokens": 900}, COMPLETIONS))
        llm.sendall(post({"inputs": "a b @pace=0.01 @poison", "parameters": {"max_new_tokens": 900}}, STREAM))
        for connection in (stream, llm):
            read_until(connection, b"text")
        served.end_generation()
        served.wire()
        tail = read_until(stream, b"[DONE]")
        assert b'"message":"refused as asked","type":"server_error"' in tail
        assert b"predict_failed" in read_until(llm, b"0\r\n\r\n")
        answer = read_until(whole, b"}}")
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"server_error" in answer


def test_a_request_over_which_preprocess_fails_twice_is_refused(serve):
    """It is one of those that preprocess had in hand. Whoever kills preprocess from outside blames nobody."""
    served = serve()
    with served.connect() as before, served.connect() as poison, served.connect() as behind:
        before.sendall(post({"inputs": "before @hang"}, STREAM))
        served.peer.expect("submit")
        poison.sendall(post({"inputs": "poison @mute"}))
        over = [served.peer.expect("submit")["submit"]]
        behind.sendall(post({"prompt": "behind @mute", "stream": True}, COMPLETIONS))
        served.peer.expect("submit")
        for ended in ("killed", "crash", "stopped"):
            served.end_generation()
            served.wire(ended=ended, over=over)
            assert [served.peer.expect("submit")["prompt"].split()[0] for _ in range(3)] == [
                "before",
                "poison",
                "behind",
            ]
        served.end_generation()
        late = served.connect()
        late.sendall(post({"inputs": "late @mute"}, STREAM))
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight") < 4:
            assert time.monotonic() < deadline
        served.wire(ended="hung", over=over)
        answer = read_until(poison, b"}}")
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"fail twice" in answer
        assert "made preprocess fail twice: it is refused" in served.front.log("refused")
        prompts = ["before", "behind", "late"]
        assert [served.peer.expect("submit")["prompt"].split()[0] for _ in range(3)] == prompts
        late.close()


def test_a_time_limit_counts_while_there_are_no_rings(serve):
    served = serve(request_timeout_s=0.5)
    with served.connect() as connection:
        connection.sendall(post({"inputs": "@hang"}))
        served.peer.expect("submit")
        served.end_generation()
        assert read_until(connection, b"}}").startswith(b"HTTP/1.1 504")
    answer = served.generate("a")
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
    served.wire()
    assert served.generate("a", max_new_tokens=1).status_code == 200
    assert served.peer.expect("submit")["prompt"] == "a"


def test_too_many_are_refused_while_there_are_no_rings(serve):
    served = serve(max_queue=1, max_rows=1)
    served.end_generation()
    with contextlib.ExitStack() as stack:
        for i in range(66):
            connection = stack.enter_context(served.connect())
            connection.sendall(post({"inputs": f"{i} a", "parameters": {"max_new_tokens": 1}}, STREAM))
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight") < 66:
            assert time.monotonic() < deadline
        answer = served.generate("a")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        served.wire()
        assert {served.peer.expect("submit")["resumed"] for _ in range(66)} == {True}
        deadline = time.monotonic() + 10
        while served.metric("ringserve_requests_in_flight"):
            assert time.monotonic() < deadline


def test_a_finished_stream_is_not_asked_for_again(serve):
    """Its last tokens have come, but its client has not taken them yet."""
    served = serve(write_timeout_s=20.0, stream_buffer_tokens=100_000)
    with served.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        body = {"prompt": "x" * 4000 + " @burst", "max_tokens": 1000, "stream": True}
        slow.sendall(post(body, COMPLETIONS))
        served.peer.expect("submit")
        time.sleep(0.5)
        served.end_generation()
        served.wire()
        assert served.generate("a", max_new_tokens=1).status_code == 200
        assert served.peer.expect("submit")["prompt"] == "a"
        assert len(events(read_until(slow, b"[DONE]\n\n\r\n0\r\n\r\n"))) == 1001


def test_descriptors_do_not_pile_up(serve):
    served = serve()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{served.front.pid}/fd"))

    counts = []
    for _ in range(5):
        served.generate("a b", max_new_tokens=2)
        counts.append(descriptors())
        served.end_generation()
        served.wire()
    assert counts[1:] == counts[:1] * 4

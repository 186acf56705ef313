"""Answers that outlive the connection of their client, and their front: read from any event on, to the same bytes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time

import httpx
import pytest

from tests.pipeline.front.conftest import read_all, read_until

SLOW = "a b c @pace=0.004"
TOOLS = [{"type": "function", "function": {"name": name}} for name in "fg"]
SAYS = 'x @pace=0.004 <think> So it is </think> Well: <tool_call> {"name": "f", "arguments": {"a": 1}} </tool_call>'
CHAT = {"messages": [{"role": "user", "content": SAYS}], "stream": True, "max_tokens": 90}
KEPT = {"x-detached-s": "20"}
STREAMS = {
    "completions": ("/v1/completions", {"prompt": SLOW, "max_tokens": 90, "stream": True}),
    "several": (
        "/v1/completions",
        {"prompt": [SLOW, SLOW], "n": 2, "max_tokens": 90, "stream": True, "logprobs": 1,
         "stream_options": {"include_usage": True}},
    ),
    "chat": ("/v1/chat/completions", {**CHAT, "tools": TOOLS, "n": 2}),
    "responses": ("/v1/responses", {"input": SAYS, "stream": True, "max_output_tokens": 90, "tools": []}),
    "messages": ("/v1/messages", {**CHAT, "model": "tiny"}),
    "llm-serving": (
        "/models/llama2/generate_stream",
        {"inputs": SLOW, "parameters": {"max_new_tokens": 90, "return_full_text": True}},
    ),
    "ollama": ("/api/chat", {"messages": CHAT["messages"], "model": "tiny", "options": {"num_predict": 90}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def kept():
    """A front that other tests of this module may leave dead."""
    from tests.pipeline.front.conftest import Served

    served = Served(1 << 20, formats=["hermes", "think"])
    yield served
    served.stop()


def separator(path):
    return b"\n" if path.startswith(("/models", "/api")) else b"\n\n"


def read_some(served, path, body, most, headers=KEPT):
    """The stream's id, and the events that came before the client went away."""
    data = b""
    with served.http.stream("POST", path, json=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_raw():
            data += piece
            if data.count(separator(path)) >= most:
                break
    *events, _ = data.split(separator(path))
    return answer.headers["x-stream-id"], events


def collect(served, name, path, after=None):
    headers = {} if after is None or separator(path) == b"\n" else {"Last-Event-ID": str(after)}
    query = f"?starting_after={after}" if after is not None and not headers else ""
    answer = served.http.get(f"/v1/streams/{name}{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    *events, rest = answer.content.split(separator(path))
    assert rest == b""
    return events


def ids_of(events):
    return [int(event.removeprefix(b"retry: 1000\n").split(b"\n")[0].removeprefix(b"id: ")) for event in events]


@pytest.mark.parametrize("api", STREAMS)
def test_a_client_comes_back(kept, api):
    path, body = STREAMS[api]
    name, first = read_some(kept, path, body, 20)
    rest = collect(kept, name, path, after=len(first) - 1)
    whole = collect(kept, name, path)
    assert first + rest == whole
    assert len(whole) > len(first) + 20
    if separator(path) == b"\n\n":
        assert ids_of(whole) == list(range(len(whole)))
    assert collect(kept, name, path, after=len(whole) - 1) == []
    assert kept.http.get(f"/v1/streams/{name}?starting_after={len(whole)}").status_code == 400


@pytest.mark.parametrize("api", STREAMS)
def test_another_front_goes_on(kept, api):
    """Killed in mid-stream: what clients of the next one read is, to the byte, what the first would have written."""
    path, body = STREAMS[api]
    done, _ = read_some(kept, path, body, 1)
    before = collect(kept, done, path)
    name, first = read_some(kept, path, body, 20)
    kept.replace_front()
    rest = collect(kept, name, path, after=len(first) - 1)
    assert first + rest == collect(kept, name, path)
    assert collect(kept, done, path) == before  # complete before: made again
    assert len(first + rest) == len(before)
    assert text_of(path, first + rest) == text_of(path, before)
    assert kept.metric("ringserve_requests_in_flight") == 0


def test_a_front_that_drains_gives_what_the_one_before_has_kept(serve):
    """It is made again when a client comes, which was let in then."""
    served = serve()
    path, body = STREAMS["completions"]
    done, _ = read_some(served, path, body, 1)
    before = collect(served, done, path)
    served.replace_front()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = pool.submit(served.generate, "a b @pace=0.02", max_new_tokens=60)
        served.peer.expect("submit")
        served.drain()
        served.front.log("draining")
        assert served.generate("c").status_code == 503
        assert collect(served, done, path) == collect(served, done, path) == before
        assert asking.result().json()["generated_tokens"] == 60
    served.http.close()
    assert served.front.wait() == 0


def test_another_front_knows_which_weights_the_first_tokens_have(kept):
    path, body = STREAMS["several"]
    kept.replace_front(weights="old")
    name, first = read_some(kept, path, body, 30, {**KEPT, "x-ringserve-timings": "1"})
    kept.replace_front(weights="new")
    *_, last, _ = first + collect(kept, name, path, after=len(first) - 1)
    texts = json.loads(last.split(b"data: ")[1])["usage"]["weights"]
    assert len(texts) == 4
    for text in texts:
        assert [one["id"] for one in text] == ["old", "new"]
        assert text[0]["from"] == 0 < text[1]["from"]


def test_a_head_has_no_body_and_does_not_wait(kept):
    path, body = STREAMS["completions"]
    name, _ = read_some(kept, path, {**body, "max_tokens": 3000}, 3)
    done, _ = read_some(kept, *STREAMS["completions"], 1)
    collect(kept, done, path)
    with kept.connect() as connection:
        for one in (name, done):
            connection.sendall(b"HEAD /v1/streams/%b HTTP/1.1\r\nHost: x\r\n\r\n" % one.encode())
            head = read_until(connection, b"\r\n\r\n")
            assert (head[:13], head[-4:]) == (b"HTTP/1.1 200 ", b"\r\n\r\n")
            assert b"x-stream-id: %b\r\ncontent-type: text/event-stream" % one.encode() in head
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    assert kept.http.delete(f"/v1/streams/{name}").status_code == 200


def test_what_is_made_again_is_not_counted_again(serve):
    served = serve(api_keys=["first"])
    mine = {"authorization": "Bearer first"}
    path, body = STREAMS["several"]
    name, _ = read_some(served, path, body, 1, {**KEPT, **mine})
    whole = served.http.get(f"/v1/streams/{name}", headers=mine).content
    used, counted = served.http.get("/v1/usage", headers=mine).json(), requests_of(served, mine)
    assert used["data"][0]["requests"] == 4
    served.replace_front()
    assert served.http.get(f"/v1/streams/{name}", headers=mine).content == whole
    assert served.http.get("/v1/usage", headers=mine).json() == used
    assert requests_of(served, mine) == counted


def requests_of(served, headers):
    lines = served.http.get("/metrics", headers=headers).text.splitlines()
    names = ("ringserve_requests_total", "ringserve_prompt_tokens", "ringserve_e2e", "ringserve_request_texts")
    return [line for line in lines if line.startswith(names)]


def text_of(path, events):
    """Without what is an answer's own: ids and times."""
    found = []
    for event in events:
        data = event if separator(path) == b"\n" else event.partition(b"data: ")[2]
        if data == b"[DONE]":
            continue
        parsed = json.loads(data)
        for choice in parsed.get("choices", ()):
            found.append((choice["index"], str(choice.get("text", choice.get("delta")))))
        if "type" in parsed:
            found.append((0, str(parsed.get("delta", parsed["type"]))))
        if "message" in parsed and "choices" not in parsed and "type" not in parsed:
            found.append((0, parsed["message"]["content"]))
    return sorted(found, key=lambda one: one[0]) if path != "/v1/chat/completions" else len(found)


def test_streams_without_the_header_are_as_ever(kept):
    path, body = STREAMS["completions"]
    answer = kept.http.post(path, json=body)
    assert b"id: " not in answer.content.split(b"\n\n")[0][:5]
    assert "x-stream-id" not in answer.headers
    assert not any(line.startswith(b"id:") for line in answer.content.split(b"\n"))


@pytest.mark.parametrize("asked", ["-1", "x", "601", "", "1e3"])
def test_the_header_is_a_number_up_to_the_limit(kept, asked):
    path, body = STREAMS["completions"]
    answer = kept.http.post(path, json=body, headers={"x-detached-s": asked})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-detached-s")


def test_whole_answers_are_kept_too(kept):
    body = {"prompt": SLOW, "max_tokens": 60}
    with pytest.raises(httpx.ReadTimeout):
        kept.http.post("/v1/completions", json=body, headers={**KEPT, "x-request-id": "mine"}, timeout=0.1)
    assert kept.http.post("/v1/completions", json=body, headers=KEPT).json()["choices"][0]["text"].startswith("a b c")


def test_refusals_are_the_api_s_own(kept):
    answer = kept.http.post("/v1/messages", json={"messages": []}, headers=KEPT)
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    answer = kept.http.post("/v1/completions", json={"prompt": "x @refuse=429"}, headers=KEPT)
    assert answer.status_code in (200, 429)


def test_only_the_key_that_asked_may_collect(serve):
    served = serve(api_keys=["first", "second"])
    mine, other = ({"authorization": f"Bearer {key}"} for key in ("first", "second"))
    path, body = STREAMS["completions"]
    name, _ = read_some(served, path, body, 3, {**KEPT, **mine})
    for headers in (mine, other, {}):
        status = served.http.get(f"/v1/streams/{name}", headers=headers).status_code
        assert status == (200 if headers is mine else 401 if not headers else 404)
    assert served.http.delete(f"/v1/streams/{name}", headers=other).status_code == 404
    served.replace_front()
    assert served.http.get(f"/v1/streams/{name}", headers=other).status_code == 404
    assert served.http.get(f"/v1/streams/{name}", headers=mine).status_code == 200
    assert served.http.delete(f"/v1/streams/{name}", headers=mine).json()["deleted"] is True
    assert served.http.get(f"/v1/streams/{name}", headers=mine).status_code == 404


def test_a_client_that_stays_away(serve):
    served = serve(detached_s=0.2)
    path, body = STREAMS["completions"]
    name, _ = read_some(served, path, {**body, "max_tokens": 3000}, 3, {})
    request = served.submitted("a")["submit"]
    assert served.peer.expect("cancel") == request
    assert served.http.get(f"/v1/streams/{name}").status_code == 404
    name, _ = read_some(served, path, {**body, "max_tokens": 3000}, 3, {"x-detached-s": "20"})
    served.submitted("a")
    assert served.http.post(f"/v1/requests/{name}/cancel").status_code == 200
    assert b"request_cancelled" in served.http.get(f"/v1/streams/{name}").content


def test_memory_is_bounded(serve):
    """The oldest that are complete make room; one that is being made is not dropped."""
    served = serve(kept_bytes=1 << 18)
    body = {"prompt": "a b c", "max_tokens": 200, "stream": True}
    names = [served.http.post("/v1/completions", json=body, headers=KEPT).headers["x-stream-id"] for _ in range(12)]
    there = [served.http.get(f"/v1/streams/{name}").status_code == 200 for name in names]
    assert there == sorted(there)
    assert not there[0]
    assert there[-1]
    long = {"prompt": "a b c", "max_tokens": 4000, "stream": True}
    assert b"pipeline.kept_bytes" in served.http.post("/v1/completions", json=long, headers=KEPT).content
    assert served.http.post("/v1/completions", json=body, headers=KEPT).content.endswith(b"[DONE]\n\n")


def test_an_answer_that_nobody_asked_to_keep_does_not_fail_for_lack_of_room(serve):
    served = serve(kept_bytes=1 << 18, detached_s=20.0)
    long = {"prompt": "a b c", "max_tokens": 3000, "stream": True}
    answer = served.http.post("/v1/completions", json=long)
    *events, _ = answer.content.split(b"\n\n")
    assert events[-1].endswith(b"[DONE]")
    assert ids_of(events) == list(range(len(events)))
    assert len(events) > 3000
    assert served.http.get(f"/v1/streams/{answer.headers['x-stream-id']}").status_code == 404
    done = served.http.post("/v1/completions", json={**long, "max_tokens": 20})  # all the room is there again
    assert served.http.get(f"/v1/streams/{done.headers['x-stream-id']}").content == done.content


def test_the_key_that_holds_the_most_gives_way(serve):
    served = serve(kept_bytes=1 << 18, api_keys=["first", "second"])
    mine, other = ({**KEPT, "authorization": f"Bearer {key}"} for key in ("first", "second"))
    body = {"prompt": "a b c", "max_tokens": 100, "stream": True}
    small = served.http.post("/v1/completions", json=body, headers=other)
    first = served.http.post("/v1/completions", json={**body, "max_tokens": 200}, headers=mine)
    long = served.http.post("/v1/completions", json={**body, "max_tokens": 4000}, headers=mine)
    assert b"pipeline.kept_bytes" in long.content
    status = served.http.get(f"/v1/streams/{first.headers['x-stream-id']}", headers=mine).status_code
    assert status == 404
    again = served.http.get(f"/v1/streams/{small.headers['x-stream-id']}", headers=other)
    assert again.content == small.content


def test_the_next_fronts_know_which_weights_have_computed_which_tokens(serve):
    served = serve(wired=False)
    served.wire(weights="old")
    body = {"prompt": "a b c @pace=0.02", "max_tokens": 60, "stream": True, "stream_options": {"include_usage": True}}
    name, first = read_some(served, "/v1/completions", body, 10, {**KEPT, "x-ringserve-timings": "1"})
    served.replace_front(weights="new")
    with served.http.stream("GET", f"/v1/streams/{name}?starting_after={len(first) + 5}") as answer:
        next(answer.iter_raw())  # some of them are there
    served.replace_front(weights="newer")
    *_, usage, _ = collect(served, name, "/v1/completions")
    (origins,) = json.loads(usage.partition(b"data: ")[2])["usage"]["weights"]
    assert [one["id"] for one in origins] == ["old", "new", "newer"]
    places = [one["from"] for one in origins]
    assert places == sorted({*places})
    assert places[0] == 0
    assert places[1] >= len(first) - 1  # the first event has no token
    assert places[2] < 60


def test_a_response_in_the_background(serve):
    served = serve()
    body = {"input": "x @pace=0.01 a b", "max_output_tokens": 40, "background": True}
    begun = served.http.post("/v1/responses", json=body).json()
    assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
    assert served.http.get(f"/v1/responses/{begun['id']}").json()["status"] == "queued"
    served.replace_front()
    done = until_done(served, begun["id"])
    assert (done["status"], done["id"], done["usage"]["output_tokens"]) == ("incomplete", begun["id"], 40)
    assert served.http.delete(f"/v1/responses/{begun['id']}").json()["deleted"] is True
    assert served.http.get(f"/v1/responses/{begun['id']}").status_code == 404


def test_what_nobody_waits_for_does_not_keep_others_out(serve):
    served = serve(max_background=2)
    body = {"input": "x @pace=0.01 a b", "max_output_tokens": 3000, "background": True}
    names = [served.http.post("/v1/responses", json=body).json()["id"] for _ in range(2)]
    refused = served.http.post("/v1/responses", json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "2 texts are generated here that no client waits for" in refused.json()["error"]["message"]
    assert served.http.post("/v1/completions", json={"prompt": "a b"}).status_code == 200
    served.http.post(f"/v1/responses/{names[0]}/cancel")
    assert served.http.post("/v1/responses", json=body).status_code == 200


def until_done(served, name):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = served.http.get(f"/v1/responses/{name}").json()
        if found["status"] not in ("queued", "in_progress"):
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_a_streamed_response_in_the_background(serve):
    served = serve()
    body = {"input": "x @pace=0.005 a b", "max_output_tokens": 60, "background": True, "stream": True}
    name, first = read_some(served, "/v1/responses", body, 10, {})
    numbers = [json.loads(event.partition(b"data: ")[2])["sequence_number"] for event in first]
    assert numbers == ids_of(first) == list(range(len(first)))
    rest = served.http.get(f"/v1/responses/resp_{name}?stream=true&starting_after={numbers[-1]}")
    assert ids_of(rest.content.split(b"\n\n")[:-1])[0] == numbers[-1] + 1
    done = served.http.get(f"/v1/responses/resp_{name}").json()
    assert (done["status"], done["usage"]["output_tokens"]) == ("incomplete", 60)


def test_a_background_response_is_cancelled(serve):
    served = serve()
    body = {"input": "x @pace=0.01 a b", "max_output_tokens": 3000, "background": True}
    name = served.http.post("/v1/responses", json=body).json()["id"]
    served.submitted("a")
    assert served.http.post(f"/v1/responses/{name}/cancel").json()["status"] == "cancelled"
    assert until_done(served, name)["status"] == "cancelled"


def test_no_answers_are_kept_where_none_may_be(serve):
    served = serve(max_detached_s=0.0)
    answer = served.http.post("/v1/responses", json={"input": "a", "background": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "background")
    answer = served.http.post("/v1/completions", json={"prompt": "a"}, headers=KEPT)
    assert answer.status_code == 400


def test_a_request_that_kills_fronts_is_given_up(serve):
    """Nothing comes of it between one front and the next: after two it is refused, and others go on."""
    served = serve()
    path, body = STREAMS["completions"]
    with contextlib.suppress(httpx.ReadTimeout):
        served.http.post(path, json={**body, "prompt": "never @wait=1000"}, headers=KEPT, timeout=0.2)
    name, _ = read_some(served, path, {**body, "max_tokens": 2000}, 3)
    for _ in range(3):
        time.sleep(0.1)
        served.replace_front()
    served.front.log("may have made a front fail")
    assert served.http.delete(f"/v1/streams/{name}").status_code == 200

"""Streams that outlive their front, and the clients that people have, against a whole server."""

from __future__ import annotations

import json

import anthropic
import httpx
import openai
import pytest

from tests.server.launched import Launched

PROMPT, TOKENS = "What is a ring?", 200
KEPT = {"x-detached-s": "30"}
STREAMS = {
    "/v1/completions": {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True},
    "/models/llama2/generate_stream": {"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    slow = "pipeline.runner.cost_model={fixed_ms: 8}"
    server = Launched(tmp_path_factory.mktemp("kept"), ("model_config.model_name=emulated", slow))
    yield server
    server.stop()


def begin(client, path):
    """The name of a stream, and some of its lines."""
    lines = []
    with client.stream("POST", path, json=STREAMS[path], headers=KEPT) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) > 60:
                break
        return answer.headers["x-stream-id"], lines


def texts(lines):
    """Of the events, in order."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith(("data: ", "{"))]
    parsed = [json.loads(event) for event in events if event != "[DONE]"]
    return [one["data"]["generated_text"] if "data" in one else one["choices"][0]["text"] for one in parsed]


def test_streams_of_two_apis_outlive_the_front(server):
    with httpx.Client(base_url=server.base, timeout=60) as client:
        begun = {path: begin(client, path) for path in STREAMS}
    server.kill("front")
    with httpx.Client(base_url=server.base, timeout=60) as client:
        for path, (name, lines) in begun.items():
            came = texts(lines)
            rest = client.get(f"/v1/streams/{name}?starting_after={len(came) - 1}")
            assert rest.status_code == 200, (path, rest.text)
            assert "".join(came + texts(rest.text.splitlines())) == server.text(PROMPT, TOKENS)
    assert "2 answers of the front before are kept, 2 go on" in server.text_said


def test_official_clients_take_events_with_numbers(server):
    with openai.OpenAI(base_url=server.base + "/v1", api_key="none", default_headers=KEPT) as client:
        parts = client.completions.create(model="emulated", prompt=PROMPT, max_tokens=9, temperature=0, stream=True)
        assert "".join(part.choices[0].text for part in parts) == server.text(PROMPT, 9)
        begun = client.responses.create(model="emulated", input="x", max_output_tokens=5, background=True)
        while begun.status in ("queued", "in_progress"):
            begun = client.responses.retrieve(begun.id)
        assert (begun.status, begun.usage.output_tokens) == ("incomplete", 5)
        whole = client.responses.create(
            model="emulated", input="x", max_output_tokens=5, temperature=0, background=True, stream=True
        )
        numbers = [event.sequence_number for event in whole]
        again = client.responses.retrieve(begun.id)
        assert again.output_text == begun.output_text
        assert numbers == list(range(len(numbers)))
        client.responses.delete(begun.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(begun.id)
    with anthropic.Anthropic(base_url=server.base, api_key="none", default_headers=KEPT) as client:
        said = [{"role": "user", "content": "x"}]
        with client.messages.stream(model="emulated", max_tokens=7, messages=said) as stream:
            assert "".join(stream.text_stream) == stream.get_final_text()

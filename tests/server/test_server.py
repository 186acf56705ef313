"""The whole server: real processes, real sockets, an emulated device whose every token is known beforehand."""

from __future__ import annotations

import concurrent.futures
import json
import random
import socket

import pytest

from tests.server.launched import Launched, run_launcher, wait_until


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Servers that are shared by tests with the same overrides."""
    running = {}

    def start(*overrides):
        if overrides not in running or running[overrides].process.poll() is not None:
            running[overrides] = Launched(tmp_path_factory.mktemp("server"), overrides)
        return running[overrides]

    yield start
    for server in running.values():
        server.stop()


SCARCE = ("pa_config.num_blocks=12", "model_config.max_generate_length=128", "model_config.seq_length=100")
VARIANTS = [(), ("pipeline.overlap=false",), ("pipeline.greedy_on_device=false",), SCARCE]


@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda overrides: ",".join(overrides) or "default")
def test_one_answer_and_thirty_two_at_once_are_what_the_device_says(launch, overrides):
    server = launch(*overrides)
    answer = server.generate("What is a ring?", 20).json()
    assert answer["generated_text"] == server.text("What is a ring?", 20)
    assert (answer["finish_reason"], answer["generated_tokens"]) == ("length", 20)
    rng = random.Random(5)
    words = ["ring", "buffer", "slot", "memory", "token", "step", "row", "block", "cache", "model"]
    jobs = [(" ".join(rng.choices(words, k=rng.randrange(1, 40))), rng.randrange(1, 60)) for _ in range(32)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda job: server.generate(*job).json()["generated_text"], jobs))
    for (prompt, count), text in zip(jobs, answers, strict=True):
        assert text == server.text(prompt, count), prompt
    assert server.metric("ringserve_num_requests_running") == 0
    if overrides == SCARCE:
        assert server.metric("ringserve_num_preemptions_total") > 0


def test_streams_say_the_same_as_whole_answers(launch):
    server = launch()
    body = {"inputs": "Tell me", "parameters": {"max_new_tokens": 12, "return_full_text": True}, "stream": True}
    with server.client.stream("POST", "/models/llama2", json=body) as response:
        lines = [json.loads(line) for line in response.iter_lines() if line]
    assert len(lines) == 13
    assert "".join(line["data"]["generated_text"] for line in lines[:12]) == server.text("Tell me", 12)
    assert lines[-1]["data"]["generated_text"] == server.text("Tell me", 12)
    completion = {"model": server.config.pipeline.model_name, "prompt": "Tell me", "max_tokens": 12, "temperature": 0}
    assert server.client.post("/v1/completions", json=completion).json()["choices"][0]["text"] == server.text(
        "Tell me", 12
    )
    with server.client.stream("POST", "/v1/completions", json=completion | {"stream": True}) as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == server.text("Tell me", 12)


@pytest.mark.parametrize("overrides", [(), ("pipeline.overlap=false",)], ids=["overlapped", "plain"])
def test_the_same_seed_gives_the_same_text_alone_and_in_company(launch, overrides):
    server = launch(*overrides)
    options = {"do_sample": True, "temperature": 1.0, "top_k": 40, "top_p": 0.9, "seed": 11}
    alone = server.generate("Once", 25, **options).json()["generated_text"]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        others = [pool.submit(server.generate, f"Another {i}", 40, **(options | {"seed": i})) for i in range(11)]
        again = server.generate("Once", 25, **options).json()["generated_text"]
        concurrent.futures.wait(others)
    assert again == alone
    assert server.generate("Once", 25, **(options | {"seed": 12})).json()["generated_text"] != alone


def test_shared_prefixes_are_computed_once_and_change_nothing(launch):
    server = launch()
    prompt = "a ring buffer in shared memory " * 12
    before = server.metric("ringserve_prefix_cache_hits_total")
    first = server.generate(prompt + "one", 10).json()["generated_text"]
    second = server.generate(prompt + "one", 10).json()["generated_text"]
    third = server.generate(prompt + "two", 10).json()["generated_text"]
    assert first == second == server.text(prompt + "one", 10)
    assert third == server.text(prompt + "two", 10)
    assert server.metric("ringserve_prefix_cache_hits_total") - before >= 2 * 64
    plain = launch("pipeline.prefix_cache=false")
    assert plain.generate(prompt + "two", 10).json()["generated_text"] == third
    assert plain.metric("ringserve_prefix_cache_hits_total") == 0


def test_two_hundred_clients_on_eight_rows(launch):
    server = launch()
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda i: server.generate(f"client {i}", 5), range(200)))
    for i, answer in enumerate(answers):
        assert answer.status_code == 200
        assert answer.json()["generated_text"] == server.text(f"client {i}", 5)
    assert server.metric("ringserve_kv_blocks_used") == 0


def test_a_full_queue_is_429_with_retry_after(launch):
    server = launch("pipeline.max_queue=4", "pipeline.runner.cost_model.fixed_ms=20")
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda i: server.generate(f"client {i}", 20), range(60)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert server.generate("after", 3).status_code == 200


def test_clients_that_go_away_give_back_their_rows(launch):
    server = launch()
    host, port = server.base.removeprefix("http://").split(":")
    for i in range(12):
        body = json.dumps({"inputs": f"gone {i}", "parameters": {"max_new_tokens": 300}, "stream": True}).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /models/llama2 HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body[: len(body) if i % 3 else 10])
            if i % 3:
                connection.recv(100)
    wait_until(lambda: server.metric("ringserve_num_requests_running") == 0, "rows are not given back")
    assert server.metric("ringserve_kv_blocks_used") == 0
    assert server.generate("still here", 5).json()["generated_text"] == server.text("still here", 5)


def test_sigterm_finishes_what_runs_and_exits_with_0(own):
    server = own("pipeline.runner.cost_model.fixed_ms=20")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(server.generate, f"long {i}", 60) for i in range(4)]
        wait_until(lambda: server.metric("ringserve_num_requests_running") == 4, "they do not run")
        assert server.end() == 0
        for i, answer in enumerate(running):
            assert answer.result().json()["generated_text"] == server.text(f"long {i}", 60)


def test_two_servers_at_once_and_a_port_in_use(launch, own):
    first, second = launch(), own()
    assert first.base != second.base
    port = first.base.rsplit(":", 1)[1]
    for server in (first, second):
        assert server.generate("both", 4).json()["generated_text"] == server.text("both", 4)
    done = run_launcher(first.path, f"serving_config.server_port={port}")
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in done.stderr


def test_a_wrong_configuration_is_told_in_full(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("model_config: {vocab_size: -1}\npipelin: {}\nserving_config: {server_port: 99999}\n")
    done = run_launcher(path)
    assert done.returncode == 2
    for word in ("vocab_size", "pipelin", "server_port"):
        assert word in done.stderr

"""Other weights under load: two replicas on emulated devices, whose weights are a seed. No stream ends, and each of
its tokens is what the weights that it names come to, so nothing was taken from a cache of other ones."""

from __future__ import annotations

import concurrent.futures
import json
import os
import threading
from dataclasses import replace

import httpx
import numpy as np
import pytest

from model.checkpoint.identity import weights_id
from model.demo import DEMO_DIR
from model.emulated.reference import expected_next_token
from model.tokenizer import load_tokenizer
from pipeline.config import load_configuration
from pipeline.launcher.weights.check import SEED, examine
from pipeline.runtime.engines import make_runner
from scripts.lab.server import launched
from scripts.tools.family_weights import PROMPT
from scripts.verify import chaos
from scripts.verify.survival.session import EMULATED
from tests.model.families.checkpoints import load
from tests.pipeline.stages import write_byte_tokenizer

SETS = (*chaos.DEFAULTS, "pipeline.replicas=2")
TIMED = {"x-ringserve-timings": "1"}
WAIT_S = 60  # nothing is asserted to be fast: this only ends a hang
TOKENS = 60
FITS = {"vocab_size": 32000, "max_position_embeddings": 4096}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with launched(EMULATED, SETS, tmp_path_factory.mktemp("weights") / "log") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def seeds():
    """By ids; filled as weights are made."""
    return {weights_id(b"emulated, seed 0", {}): 0}


@pytest.fixture
def folder(tmp_path, seeds):
    """Another one each time."""
    place = tmp_path / "new"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**FITS, "made for": str(tmp_path)}))
    found = examine(load_configuration(EMULATED), str(place))
    seeds[found.id] = found.values[SEED]
    return place


@pytest.fixture(scope="module")
def right():
    """Whether these are the tokens after a prompt, each with the weights that it is said to have."""
    settings, names = make_runner(load_configuration(EMULATED, SETS)).settings, load_tokenizer(DEMO_DIR)
    ids = {names.token_text(one): one for one in range(*settings.token_range)}

    def check(seeds, prompt, tokens, origin):
        sequence, said = [*prompt], {one["from"]: one["id"] for one in origin}
        for index, token in enumerate(tokens):
            seed = seeds[said[max(first for first in said if first <= index)]]
            sequence.append(expected_next_token(sequence, replace(settings, seed=seed)))
            if ids[token] != sequence[-1]:
                return f"token {index} is {ids[token]}, expected {sequence[-1]} of seed {seed}"
        return ""

    return check


def change(server, folder, **more):
    body = {"folder": str(folder), **more}
    return httpx.post(f"{server.base_url}/admin/weights", json=body, timeout=WAIT_S)


def shown(server):
    return httpx.get(f"{server.base_url}/admin/weights", timeout=WAIT_S).json()


def stream(server, prompt, count=TOKENS):
    """Tokens, and which weights they have."""
    body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True, "logprobs": 0,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    tokens, usage = [], {}
    with httpx.stream(
        "POST", f"{server.base_url}/v1/completions", json=body, headers=TIMED, timeout=WAIT_S
    ) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
            assert "error" not in event, event
            tokens += [one for choice in event.get("choices", ()) for one in choice["logprobs"]["tokens"]]
            usage = event.get("usage") or usage
    assert len(tokens) == count
    return tokens, usage["weights"][0]


class Load:
    """Eight clients that have one stream after the other, with prompts that begin alike. Of several lengths: those of
    a replica must not all end at once, perhaps just before it is stopped."""

    def __init__(self, server):
        self.over, self.streams = threading.Event(), []
        self._server, self._pool = server, concurrent.futures.ThreadPoolExecutor(8)
        self._clients = [self._pool.submit(self._run, number) for number in range(8)]

    def _run(self, number):
        prompt = [*range(400, 464), 500 + number % 4]
        while not self.over.is_set():
            self.streams.append((prompt, *stream(self._server, prompt, TOKENS + 15 * number)))

    def stop(self):
        self.over.set()
        for client in self._clients:
            client.result(WAIT_S)
        return self.streams


def test_no_stream_ends_and_each_token_has_the_weights_that_it_names(server, folder, seeds, right):
    before = shown(server)
    (old,) = {one["weights"] for one in before["replicas"]}
    load = Load(server)
    answer = change(server, folder, wait=True)
    streams = load.stop()
    assert answer.status_code == 200, answer.text
    report = shown(server)
    (new,) = {one["weights"] for one in report["replicas"]}
    assert (seeds[old], report["state"], report["change"]["outcome"]) == (0, "idle", "done")
    assert new == report["change"]["weights"] != old
    wrong = [why for prompt, tokens, origin in streams if (why := right(seeds, prompt, tokens, origin))]
    assert not wrong
    both = [origin for _, _, origin in streams if len(origin) > 1]
    assert both
    assert all([one["id"] for one in origin] == [old, new] for origin in both)  # a text changes once
    prompt = streams[0][0]
    tokens, origin = stream(server, prompt)
    assert origin == [{"from": 0, "id": new}]
    assert not right(seeds, prompt, tokens, origin)
    metrics = server.metrics()
    assert metrics.total("weights_info", weights=new) == 2
    assert metrics.total("restarts_total") == 0  # nothing has failed


def test_while_one_change_is_under_way_another_is_refused(server, folder):
    assert change(server, folder).status_code == 202
    again = change(server, folder)
    assert (again.status_code, again.json()["error"]["type"]) == (409, "service_unavailable_error")
    done = threading.Event()
    while (report := shown(server))["state"] != "idle":
        done.wait(0.05)
    assert report["change"]["outcome"] == "done"


def test_what_does_not_fit_is_refused_and_disturbs_nobody(server, tmp_path):
    before, generations = shown(server)["replicas"], server.metrics().total("generation")
    (tmp_path / "config.json").write_text(json.dumps({**FITS, "vocab_size": 31999}))
    for place, words in ((tmp_path, "vocab_size is 31999, expected 32000"), (tmp_path / "none", "does not exist")):
        answer = change(server, place)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "folder"
    assert shown(server)["replicas"] == before
    assert server.metrics().total("generation") == generations


# ---- a model ---------------------------------------------------------------------------------------------------


def test_weights_that_can_not_be_loaded_are_rolled_back(tmp_path):
    """A decoder on one replica, whose stream waits meanwhile; then with weights of which transformers' answer is
    known."""
    known = load()["qwen2"]
    base, spoilt, new = (tmp_path / name for name in ("base", "spoilt", "new"))
    for place, name in ((base, "others"), (spoilt, "spoilt"), (new, known.name)):
        replace(known, name=name).save(place)
        write_byte_tokenizer(place, known.config["vocab_size"] - 1)
    with (spoilt / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32("nan").tobytes())
    few = ("pipeline.token_budget=16", "pipeline.max_rows=2", f"pipeline.runner.compile_cache={tmp_path}/graphs")
    prompt, answer = known.tokens[:PROMPT].tolist(), known.tokens[PROMPT:].tolist()
    with launched(base, few, tmp_path / "log") as server:
        before = complete(server, prompt, len(answer))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            refused = pool.submit(change, server, spoilt, wait=True)
            while not refused.done():
                assert complete(server, prompt, len(answer)) == before
        error = refused.result().json()["error"]["message"]
        assert refused.result().status_code == 500
        assert "the old ones do again" in error
        assert "the file is damaged" in error
        report = shown(server)
        assert (report["state"], report["change"]["outcome"]) == ("idle", "rolled back")
        assert report["change"]["error"] in error
        assert complete(server, prompt, len(answer)) == before
        assert change(server, new, wait=True).status_code == 200
        (ids,) = [one["weights"] for one in shown(server)["replicas"]]
        names = load_tokenizer(base)
        wanted = [names.token_text(one) for one in answer]
        assert complete(server, prompt, len(answer)) == (wanted, [{"from": 0, "id": ids}]) != before
        assert server.stop() == 0


def complete(server, prompt, count):
    """Tokens, and which weights they have."""
    body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    url = f"{server.base_url}/v1/completions"
    answer = httpx.post(url, json=body, headers=TIMED, timeout=WAIT_S).json()
    return answer["choices"][0]["logprobs"]["tokens"], answer["usage"]["weights"][0]

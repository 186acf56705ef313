"""`ringserve serve DIR --lora …` with the decoder: an adapter beside a model answers as the model it is merged into.
Emulated devices are in test_supervision.py, logits in tests/model/adapters."""

from __future__ import annotations

import concurrent.futures

import httpx
import pytest

from scripts.lab.server import launched
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.pipeline.stages import write_byte_tokenizer

PROMPT = "What is a ring of two?"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder, checkpoint = tmp_path_factory.mktemp("adapters"), load()["qwen2"]
    base = checkpoint.save(folder / "base")
    write_byte_tokenizer(base, checkpoint.config["vocab_size"] - 1)
    return folder, base, {name: Lora(checkpoint, seed).save(folder / name) for seed, name in enumerate("ab", 1)}


def served(places, rows, *lora):
    folder, base, _ = places
    few = ("pipeline.token_budget=16", f"pipeline.max_rows={rows}", f"pipeline.runner.compile_cache={folder}/graphs")
    options = [word for text in lora for word in ("--lora", text)]
    return launched(base, few, folder / "log", options=options)


def text(server, model):
    body = {"model": model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    answer = httpx.post(f"{server.base_url}/v1/completions", json=body, timeout=120).json()
    assert answer["model"] == model
    return answer["choices"][0]["logprobs"]["tokens"]


def test_each_has_its_own_answers_and_they_are_those_of_one_that_is_merged(places):
    adapters, models = places[2], ("base", "a", "b", "a", "b", "base")
    named = [f"{name}={place}" for name, place in adapters.items()]
    with served(places, 2, *named) as server, concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
        texts = list(pool.map(lambda model: text(server, model), models))
    assert texts[3:] == [texts[1], texts[2], texts[0]]
    assert len({tuple(one) for one in texts}) == 3
    with served(places, 1, str(adapters["b"])) as server:
        assert text(server, "base") == texts[2]

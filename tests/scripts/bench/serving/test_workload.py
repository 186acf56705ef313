"""Workloads: recorded, random, and from files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from scripts.bench.serving.workload import (
    PromptMaker,
    make_requests,
    random_lengths,
    read_custom,
    read_lengths,
    recorded_lengths,
)
from scripts.lab.errors import BenchError


@pytest.mark.parametrize(
    ("name", "count", "prompt_mean", "output_mean", "longest_prompt", "longest_output"),
    [("task1", 1500, 20.95, 65.39, 193, 504), ("task2", 500, 22.88, 67.84, 338, 464)],
)
def test_recorded_lengths_are_those_of_the_known_load(
    name, count, prompt_mean, output_mean, longest_prompt, longest_output
):
    prompts, outputs = zip(*recorded_lengths(name), strict=True)
    assert len(prompts) == count
    assert np.mean(prompts) == pytest.approx(prompt_mean, abs=0.005)
    assert np.mean(outputs) == pytest.approx(output_mean, abs=0.005)
    assert (max(prompts), max(outputs)) == (longest_prompt, longest_output)


def test_task1_begins_as_it_was_recorded():
    lengths = recorded_lengths("task1")
    assert lengths[:4] == [(21, 52), (32, 3), (18, 17), (22, 23)]
    assert sum(output for _, output in lengths) == 98_086


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("prompt,output\n1,2\n", "prompt_tokens"),
        ("prompt_tokens,output_tokens\n1,x\n", "invalid literal"),
        ("prompt_tokens,output_tokens\n3,4\n0,2\n", "line 3: lengths are 0 and 2"),
        ("prompt_tokens,output_tokens\n3\n", "holds no lengths"),
    ],
)
def test_lengths_that_are_none(tmp_path, text, word):
    file = tmp_path / "lengths.csv"
    file.write_text(text)
    with pytest.raises(BenchError, match=word):
        read_lengths(file)
    with pytest.raises(BenchError, match="holds no lengths"):
        read_lengths(tmp_path / "missing.csv")


def test_random_lengths_stay_within_their_range_and_use_it():
    rng = np.random.default_rng(0)
    assert random_lengths(3, 7, 5, 0.0, rng) == [(7, 5)] * 3
    prompts, outputs = zip(*random_lengths(2000, 100, 10, 0.5, rng), strict=True)
    assert (min(prompts), max(prompts)) == (50, 150)
    assert (min(outputs), max(outputs)) == (5, 15)
    assert min(prompt for prompt, _ in random_lengths(500, 1, 1, 0.9, rng)) == 1


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO_DIR)


def test_prompts_have_exactly_the_length_that_was_asked_for(tokenizer):
    maker = PromptMaker(tokenizer.encode, np.random.default_rng(1))
    for tokens in [*range(1, 60), 193, 512, 2000]:
        text, ids = maker.make(tokens)
        assert len(ids) == tokens
        assert tokenizer.encode(text) == ids


def test_the_same_seed_gives_the_same_prompts_in_file_order(tokenizer):
    lengths = recorded_lengths("task2")[:50]
    first, again, other = (
        make_requests(lengths, PromptMaker(tokenizer.encode, np.random.default_rng(seed)), as_ids=False)
        for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other
    assert [(request.prompt_tokens, request.output_tokens) for request in first] == lengths
    assert len({request.prompt for request in first}) == len(first)


def test_prompts_as_ids(tokenizer):
    maker = PromptMaker(tokenizer.encode, np.random.default_rng(4))
    (request,) = make_requests([(12, 3)], maker, as_ids=True)
    assert isinstance(request.prompt, list)
    assert len(request.prompt) == 12


def test_lengths_that_no_text_has():
    def even(text):
        return [1, 2, *(2 * [3] * len(text.split()))]

    maker = PromptMaker(even, np.random.default_rng(0))
    assert len(maker.make(8)[1]) == 8
    with pytest.raises(BenchError, match="exactly 9 tokens"):
        maker.make(9)
    with pytest.raises(BenchError, match="adds 2 itself"):
        maker.make(1)


def test_prompts_of_the_user(tmp_path):
    entries = ["one", {"prompt": "two", "output_tokens": 7}, {"prompt": [3, 4, 5], "max_tokens": 2}]
    array, lines = tmp_path / "a.json", tmp_path / "b.jsonl"
    array.write_text(json.dumps(entries))
    lines.write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    for file in (array, lines):
        requests = read_custom(file, default_tokens=11)
        assert [request.prompt for request in requests] == ["one", "two", [3, 4, 5]]
        assert [request.output_tokens for request in requests] == [11, 7, 2]
        assert [request.prompt_tokens for request in requests] == [None, None, 3]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "holds no prompts"),
        ("[]", "holds no prompts"),
        ("[1, 2", "can't be read"),
        ('["a", 3]', "entry 2: expected a text"),
        ('[{"text": "a"}]', "entry 1: expected"),
        ('[{"prompt": []}]', "entry 1: expected"),
        ('[{"prompt": [true]}]', "entry 1: expected"),
        ('[{"prompt": [-1]}]', "entry 1: expected"),
        ('[{"prompt": "a", "output_tokens": 0}]', "output_tokens is 0"),
        ('[{"prompt": "a", "output_tokens": "9"}]', "output_tokens is '9'"),
    ],
)
def test_prompts_that_are_none_are_told_with_their_place(tmp_path, text, word):
    file = tmp_path / "prompts.json"
    file.write_text(text)
    with pytest.raises(BenchError, match=word):
        read_custom(file, 5)

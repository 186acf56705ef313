"""Texts that are replayed: the answer to one of the file's prompts is the file's, to others the engine's."""

import functools
import json

import pytest

from model.emulated import expected_tokens
from model.errors import ConfigurationError
from model.replay import ReplayRunner, read_texts
from model.sampling import SamplingParams
from pipeline.wire.request import Request
from tests.pipeline.stages import Server

PROMPT, OTHER = list(range(40, 60)), list(range(60, 80))
ANSWER = [*PROMPT[2:18], 7, *PROMPT[3:15], 8, 9, *PROMPT]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "texts.jsonl"
    lines = [{"prompt": PROMPT, "answer": ANSWER}, {"prompt": OTHER, "answer": OTHER[::-1]}]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


class Replaying(Server):
    texts = None

    def make_runner(self):
        return ReplayRunner(super().make_runner(), self.texts)


@pytest.fixture
def replay(serve, file):
    class WithTexts(Replaying):
        texts = read_texts(file)

    return functools.partial(serve, WithTexts, budget=64)


def params(count, **options):
    return Request(SamplingParams(**{"temperature": 0.0, **options}), count)


@pytest.mark.parametrize("drafts", [0, 7])
@pytest.mark.parametrize("greedy_on_device", [True, False])
def test_the_answer_is_the_text_s(replay, drafts, greedy_on_device):
    server = replay(drafts=drafts, greedy_on_device=greedy_on_device)
    server.submit(1, PROMPT, params(len(ANSWER)))
    server.submit(2, OTHER, params(10, logprobs=2))
    server.submit(3, [4, 4], params(10))
    server.run()
    assert server.tokens(1) == ANSWER
    assert server.tokens(2) == OTHER[::-1][:10]
    assert server.tokens(3) == expected_tokens([4, 4], 10, server.settings)


def test_it_takes_fewer_steps_with_drafts(replay):
    """Of its own drafter: the answer is a copy of the prompt, with a few changes."""
    steps = []
    for drafts in (0, 7):
        server = replay(drafts=drafts, block_size=8)
        server.submit(1, PROMPT, params(len(ANSWER)))
        server.run()
        assert server.tokens(1) == ANSWER
        steps.append(server.inference.steps_done)
    assert steps[1] < 0.5 * steps[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": [1, 2], "answer": []}', "line 1: no prompt of its own of 8 tokens"),
        ('{"prompt": [1, 2, 3, 4, 5, 6, 7, 8], "answer": []}\n' * 2, "line 2: no prompt of its own"),
        ("[", "holds no texts to be replayed"),
        ("{}", "holds no texts to be replayed"),
    ],
)
def test_a_file_of_something_else(tmp_path, text, message):
    file = tmp_path / "texts.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_texts(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_texts(tmp_path / "gone")

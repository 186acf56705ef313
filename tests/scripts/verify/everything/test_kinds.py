"""The mix has what its name promises."""

from __future__ import annotations

from scripts.verify.everything.kinds import (
    ADAPTER,
    ADAPTERS,
    CHAT,
    COMPLETIONS,
    DETERMINISTIC,
    GENERATE,
    GENERATE_STREAM,
    GRAMMARS,
    MESSAGES,
    OLLAMA,
    OLLAMA_CHAT,
    RESPONSES,
    SCORES,
    Way,
    kinds,
    left_out,
)

ALL = (DETERMINISTIC, ADAPTERS, SCORES, GRAMMARS)
APIS = {COMPLETIONS, CHAT, RESPONSES, MESSAGES, OLLAMA, OLLAMA_CHAT, GENERATE, GENERATE_STREAM}


def test_every_api_and_way_is_there():
    mix = kinds(50, ALL, 2)
    assert {kind.path for kind in mix} == APIS
    assert {kind.way for kind in mix} == set(Way)
    assert len({kind.name for kind in mix}) == len(mix) >= 70
    words = {key for kind in mix for key in kind.body}
    assert words >= {"n", "echo", "logprobs", "prompt_logprobs", "tools", "response_format", "structured_outputs",
                     "deterministic", "speculation", "background", "seed"}  # fmt: skip


def test_what_an_engine_can_not_do_is_left_out_and_named():
    mix = kinds(50, (SCORES, GRAMMARS), 1)
    assert left_out((SCORES, GRAMMARS)) == [ADAPTERS, DETERMINISTIC]
    assert not any(kind.body.get("model") == ADAPTER or kind.body.get("deterministic") for kind in mix)
    assert left_out(ALL) == []


def test_what_is_drawn_has_a_seed():
    """Else nothing could be compared; Anthropic's API has none, and is greedy."""
    for kind in kinds(50, ALL, 1):
        inner = {**kind.body, **kind.body.get("parameters", {}), **kind.body.get("options", {})}
        greedy = inner.get("temperature") == 0 or (kind.path.startswith("/models") and not inner.get("do_sample"))
        assert greedy or "seed" in inner, kind
        assert kind.drawn is not greedy, kind


def test_a_drawn_text_has_its_log_probabilities():
    """By which it can be judged where it differs."""
    for kind in kinds(50, ALL, 1):
        assert kind.twin is None or kind.body.get("temperature") == 0, kind

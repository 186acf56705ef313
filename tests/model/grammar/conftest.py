"""The demo model's vocabulary, and texts in and out of it."""

from __future__ import annotations

import numpy as np
import pytest

from model.demo import DEMO_DIR
from model.grammar import Grammars, Matcher, Vocabulary, check, grammar_text
from model.tokenizer import Tokenizer, load_tokenizer
from tests.model.grammar.answers import MARKS, Model, with_tokens


class Kit:
    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary(tokenizer, vocab_size, tokenizer.eos_ids)
        self.grammars = Grammars(self.vocabulary)

    def matcher(self, kind: str, value=None) -> Matcher:
        text = grammar_text(kind, value)
        check(text)
        return self.grammars.matcher(text)

    def mask(self, matcher: Matcher) -> set[int]:
        words = np.full(self.vocabulary.known.shape, 0xFFFFFFFF, np.uint32)  # what was there must not matter
        matcher.fill(words)
        return set(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist())

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special=False)

    def accepts(self, kind: str, value, text: str) -> bool:
        """Whether the whole text may be an answer: each token is in the mask, and the end token at the end."""
        matcher = self.matcher(kind, value)
        for token in self.ids(text):
            if token not in self.mask(matcher):
                return False
            assert matcher.take(token)
        allowed = bool(self.mask(matcher) & self.tokenizer.eos_ids)
        assert allowed == matcher.may_end
        return allowed


@pytest.fixture(scope="session")
def kit() -> Kit:
    tokenizer = load_tokenizer(DEMO_DIR)
    return Kit(tokenizer, tokenizer.vocab_size)


@pytest.fixture(scope="session", params=["text", "tokens"])
def vocabulary_model(request, tmp_path_factory):
    own = request.param == "tokens"
    return Model(with_tokens(tmp_path_factory.mktemp("own"), MARKS) if own else load_tokenizer(DEMO_DIR))


@pytest.fixture
def model(vocabulary_model):
    """Its marks are text, or tokens of their own. What it writes depends on the test alone."""
    vocabulary_model.rng = np.random.default_rng(13)
    return vocabulary_model

"""Prompts of an exact number of tokens, under whichever tokenizer the server has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scripts.bench.serving.workload import Lengths, Request
from scripts.lab.errors import BenchError

Encode = Callable[[str], list[int]]
"""Token ids of a text as the server makes them, special tokens included."""

_TRIES = 200
_WORDS = (  # noqa: SIM905 - a list of 150 words would be a page long
    "a about after again all along also another around as ask at back because before begin between block both bring "
    "buffer but by cache call carry change clear come copy count data device do down each early empty end even every "
    "fast few find first follow for from full give go good great group hand have head here high hold how if in into "
    "it keep kind know large last late lead leave length let line list little load long look low make many may "
    "memory model more most move much must name near need never new next no not now number of off old on once one "
    "only open or order other out over own part pass place plan point put queue read reach ready rest right ring row "
    "run same say second see send set share short show side slot small so some start state step still stop such take "
    "tell than that the then there they this time to token too turn two under until up use wait way we what when "
    "where which while who why will with word work world would write year yes you"
).split()


class PromptMaker:
    """Random words, a few more or less until the count is right. The same generator gives the same prompts."""

    def __init__(self, encode: Encode, rng: np.random.Generator) -> None:
        self._encode, self._rng = encode, rng
        self._least = len(encode(""))

    def make(self, tokens: int) -> tuple[str, list[int]]:
        """A prompt and its ids. Raises BenchError where there is none of that length."""
        if tokens < self._least:
            raise BenchError(f"a prompt of {tokens} tokens can't be made: this tokenizer adds {self._least} itself")
        text, ids = "", self._encode("")
        for _ in range(_TRIES):
            if len(ids) == tokens:
                return text, ids
            text = self._longer(text, tokens - len(ids)) if len(ids) < tokens else text[: -(len(ids) - tokens)]
            ids = self._encode(text)
        raise BenchError(f"no text of exactly {tokens} tokens was found in {_TRIES} tries")

    def _longer(self, text: str, missing: int) -> str:
        """By as many words as there are tokens missing at most: a word is a token or more."""
        if missing == 1:
            return text + (" " if text else "") + "aiou"[self._rng.integers(4)]
        words = [_WORDS[i] for i in self._rng.integers(len(_WORDS), size=max(1, missing // 2))]
        return " ".join([text, *words] if text else words)


def make_requests(lengths: list[Lengths], maker: PromptMaker, *, as_ids: bool) -> list[Request]:
    """Requests of these lengths, in this order."""
    requests = []
    for prompt_tokens, output_tokens in lengths:
        text, ids = maker.make(prompt_tokens)
        requests.append(Request(ids if as_ids else text, prompt_tokens, output_tokens))
    return requests

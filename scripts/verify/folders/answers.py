"""What a server says to a checkpoint's prompts, against transformers' answers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scripts.tools.family_checkpoints import Checkpoint
from scripts.tools.family_weights import ANSWER, POSITIONS, PROMPT
from scripts.verify.folders.alphabets import Alphabet, pairs_encoded

LIMIT = 1e-3
"""Of a log-probability's difference."""
_TOP = 5
_LATER = (0, 5, 11, 20)  # prompts that are asked at once have so many tokens of the answer, too
_TEXT = "abcdef GHIJ klm, 12345: mnopqrst!"  # for tokens that are bytes: the references' prompts are not UTF-8
_TIMEOUT_S = 120


@dataclass(slots=True)
class Outcome:
    """Of one folder. ``tokens``: how many of the whole answer are transformers'. ``refused``: the server's last
    words where it did not start."""

    name: str
    family: str
    engine: str = "-"
    tokens: int = 0
    difference: float = 0.0  # the largest of all log-probabilities
    start_s: float = 0.0
    refused: str = ""
    wrong: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: Sequence[str]
    logprobs: Sequence[float]
    top: Sequence[Mapping[str, float]]


class Judge:
    """Asks one server and compares. Raises OSError where there is no answer."""

    def __init__(self, base_url: str, checkpoint: Checkpoint, alphabet: Alphabet, outcome: Outcome) -> None:
        self._url, self._it, self._alphabet, self._outcome = base_url, checkpoint, alphabet, outcome
        self._ids: list[int] = checkpoint.tokens.tolist()
        self._model = _json(f"{base_url}/v1/models")["data"][0]["id"]

    def run(self) -> None:
        whole = self._ask(self._ids[:PROMPT], ANSWER)
        names = list(map(self._alphabet.name, self._ids[PROMPT:]))
        equal = [one == other for one, other in zip(whole.tokens, names, strict=True)]
        self._outcome.tokens = [*equal, False].index(False)
        self._compare("the whole prompt", whole, 0)
        self._compare_tops(whole)
        self._ask_by_text(whole)
        with ThreadPoolExecutor(len(_LATER)) as pool:
            answers = pool.map(lambda later: self._ask(self._ids[: PROMPT + later], ANSWER - later), _LATER)
        for later, answer in zip(_LATER, answers, strict=True):
            self._compare(f"{PROMPT + later} tokens, beside others", answer, later)

    def _ask_by_text(self, whole: Answer) -> None:
        """The same ids as text; of an alphabet of bytes, whether a text and its ids are answered alike."""
        if b"ab" not in self._alphabet.tokens:
            self._compare("the prompt as text", self._ask(self._alphabet.text(self._ids[:PROMPT]), ANSWER), 0)
            return
        text, ids = self._ask(_TEXT, ANSWER), self._ask(pairs_encoded(_TEXT), ANSWER)
        self._outcome.require(text.tokens == ids.tokens != whole.tokens, "a text and its ids have other answers")

    def _ask(self, prompt: str | list[int], tokens: int) -> Answer:
        body = {"model": self._model, "prompt": prompt, "max_tokens": tokens, "logprobs": _TOP}
        choice = _json(f"{self._url}/v1/completions", {**body, "temperature": 0, "ignore_eos": True})["choices"][0]
        found = choice["logprobs"]
        return Answer(choice["text"], found["tokens"], found["token_logprobs"], found["top_logprobs"])

    def _compare(self, what: str, answer: Answer, first: int) -> None:
        """With the answer from its token ``first`` on."""
        prompt, ids = self._ids[: PROMPT + first], self._ids[PROMPT + first :]
        self._outcome.require(list(answer.tokens) == list(map(self._alphabet.name, ids)), f"{what}: other tokens")
        self._outcome.require(answer.text == self._alphabet.text(ids, prompt), f"{what}: another text")
        self._differ(what, answer.logprobs, self._it.logprobs[first:])

    def _compare_tops(self, answer: Answer) -> None:
        """The most probable tokens, where the reference has all logits: at the answer's begin and end."""
        for at, position in enumerate(POSITIONS):
            if position >= PROMPT - 1:
                top = answer.top[position - PROMPT + 1]
                logits = self._it.logits[at].astype(np.float64)
                logprobs = logits - np.logaddexp.reduce(logits)
                best = np.argsort(-logprobs)[:_TOP].tolist()
                names = list(map(self._alphabet.name, best))
                if len(set(names)) == _TOP:  # parts of characters have no names of their own
                    self._outcome.require(set(top) == set(names), f"position {position}: other candidates")
                    self._differ(f"position {position}", [top.get(name, np.nan) for name in names], logprobs[best])

    def _differ(self, what: str, found: Sequence[float], expected: Any) -> None:
        difference = float(np.abs(np.subtract(found, expected)).max())
        self._outcome.difference = float(np.fmax(self._outcome.difference, difference))
        self._outcome.require(difference <= LIMIT, f"{what}: a log-probability is off by {difference:.1e}")


def _json(url: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)

"""One schema's verdict: what its grammar generates and accepts, compared with `jsonschema`."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from numpy.typing import NDArray

from model.grammar import GrammarError, Grammars, Matcher, Vocabulary, check, grammar_text
from model.tokenizer import load_tokenizer
from scripts.lab.paths import ROOT

LONGEST = 400  # tokens of a random text; what has not ended by then is not judged
CLOSERS = frozenset(b'"}],:')


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    schema: Any
    instances: list[tuple[Any, bool]]  # and whether it is valid, as the bench says

    @classmethod
    def read(cls, file: Path) -> Case:
        content = json.loads(file.read_text(encoding="utf-8"))
        tests = [(test["data"], bool(test["valid"])) for test in content.get("tests", ())]
        return cls(file.name, content["schema"], tests)


@dataclass(slots=True)
class Verdict:
    name: str
    kind: str = "right"
    keyword: str = ""
    why: str = ""
    texts: int = 0
    instances: int = 0

    def is_(self, kind: str, keyword: str, why: str) -> Verdict:
        if self.kind != "wrong":
            self.kind, self.keyword, self.why = kind, keyword, why[:300]
        return self

    def summary(self) -> dict[str, object]:
        return dataclasses.asdict(self)


class Judge:
    """With the demo model's vocabulary."""

    def __init__(self, walks: int, seed: int) -> None:
        self._tokenizer = load_tokenizer(ROOT / "model" / "demo")
        self._vocabulary = Vocabulary(self._tokenizer, self._tokenizer.vocab_size, self._tokenizer.eos_ids)
        self._grammars = Grammars(self._vocabulary, most=1)
        self._walks, self._random = walks, random.Random(seed)  # noqa: S311
        self._mask = np.zeros_like(self._vocabulary.known)
        self._bias = self._biases()

    def reseed(self, seed: int) -> None:
        """What it draws from now on depends on nothing before."""
        self._random.seed(seed)

    def verdict(self, case: Case) -> Verdict:
        verdict = Verdict(case.name)
        try:
            text = grammar_text("json_schema", case.schema)
            check(text)
            matcher = self._grammars.matcher(text)
        except GrammarError as error:
            return verdict.is_("refused", error.keyword, str(error))
        try:
            valid = validator(case.schema)
            self._judge_instances(case, matcher, valid, verdict)
            self._judge_texts(matcher, valid, verdict)
        except Exception as error:  # noqa: BLE001
            return verdict.is_("not judged", type(error).__name__, str(error))
        return verdict

    def _judge_instances(self, case: Case, matcher: Matcher, valid: jsonschema.Validator, verdict: Verdict) -> None:
        for data, expected in case.instances:
            accepted = self._accepts(matcher.copy(), json.dumps(data, ensure_ascii=False))
            verdict.instances += 1
            if accepted and not expected and not valid.is_valid(data):
                verdict.is_("wrong", "instance", f"accepts {json.dumps(data)}")
            if expected and not accepted and verdict.kind == "right" and valid.is_valid(data):
                verdict.is_("in part", "instance", f"does not accept {json.dumps(data)}")

    def _accepts(self, matcher: Matcher, text: str) -> bool:
        return matcher.replay(self._tokenizer.encode(text, add_special=False)) and matcher.may_end

    def _judge_texts(self, matcher: Matcher, valid: jsonschema.Validator, verdict: Verdict) -> None:
        for walk in range(self._walks):
            text, why = self._walk(matcher.copy(), greedy=walk % 2 == 0)
            if why:
                verdict.is_("wrong", "mask", f"{why} after {text[:200]!r}")
            elif text:
                verdict.texts += 1
                fault = self._fault(text, valid)
                if fault:
                    verdict.is_("wrong", "text", f"{fault} in {text[:300]!r}")

    def _fault(self, text: str, valid: jsonschema.Validator) -> str:
        try:
            value = json.loads(text)
        except ValueError as error:
            return f"no JSON: {error}"
        found = next(valid.iter_errors(value), None)
        return "" if found is None else found.message[:200]

    def _walk(self, matcher: Matcher, *, greedy: bool) -> tuple[str, str]:
        """A random text, "" if it did not end; and what went wrong."""
        ids: list[int] = []
        for _ in range(LONGEST):
            matcher.fill(self._mask)
            token = self._choose(greedy)
            if matcher.error or token < 0:
                return self._tokenizer.decode(ids), matcher.error or "nothing is allowed"
            if token in self._tokenizer.eos_ids:
                return self._tokenizer.decode(ids), ""
            if not matcher.take(token):
                return self._tokenizer.decode(ids), f"its own mask's token {token} is refused: {matcher.error}"
            ids.append(token)
        return "", ""

    def _choose(self, greedy: bool) -> int:
        allowed = np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), bitorder="little"))
        if not allowed.size:
            return -1
        if not greedy and self._random.random() < 0.7:  # what closes would come too rarely to end
            return int(self._random.choice(allowed))
        noise = np.array([self._random.gauss(0, 2) for _ in range(allowed.size)])
        return int(allowed[np.argmax(noise + self._bias[allowed])])

    def _biases(self) -> NDArray[np.float64]:
        bias = np.zeros(self._vocabulary.known.size * 32)
        for token in range(self._tokenizer.vocab_size):
            data = self._tokenizer.token_bytes(token)
            bias[token] = 9 if data and CLOSERS.issuperset(data) else -6 if data and not data.strip() else 0
        bias[list(self._tokenizer.eos_ids)] = 12
        return bias


def validator(schema: Any) -> jsonschema.Validator:
    """Of the draft that the schema names, else of the newest."""
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)

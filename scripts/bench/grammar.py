"""What structured output costs: set-up, compiling, masks, tokens; for vocabularies of several sizes. One core.

    python -m scripts.bench.grammar [--vocab 2048,32000,128000] [--walks 4] [--schemas DIRECTORY] [--json FILE]

2,048 is the demo model's own vocabulary. The larger ones are made here from the text of this repository and of the
installed packages: its bytes, then the most frequent pieces of words, so they are as crowded as real ones but not
real. The grammars are ordinary ones and the largest that the limits let through; ``--schemas`` adds those of a
directory (of `scripts.verify.schemas`). Tokens are drawn at random from the masks. Exit status 1 if a compile took
more than 250 ms or a mask more than 10 ms, by its CPU time.

With speculation, tokens that must follow are drafts: how many tokens a step brings then is the last table.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.demo import DEMO_DIR
from model.grammar import LIMITS, GrammarError, Grammars, Vocabulary, check, grammar_text
from model.tokenizer import Tokenizer, load_tokenizer
from scripts.lab.arguments import counts, parser, say, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.table import columns
from scripts.lab.vocabulary import write_tokenizer

DEMO = 2048
STEPS = 150  # tokens a walk
MOST_DRAFTS = 7
WORST_COMPILE_MS, WORST_MASK_MS = 250, 10


def main() -> int:
    command = parser(__doc__)
    command.add_argument("--vocab", type=counts(1_000_000), default=(DEMO, 32_000, 128_000))
    command.add_argument("--walks", type=int, default=4)
    command.add_argument("--schemas", type=Path, help="a copy of jsonschemabench")
    command.add_argument("--count", type=int, default=400, help="how many of its schemas")
    command.add_argument("--json", type=Path)
    given = command.parse_args()
    grammars = dict(cases())
    if given.schemas:
        grammars |= dict(public(given.schemas, given.count))
    reports = [measure(size, grammars, given.walks) for size in given.vocab]
    print(describe_machine())
    for report in reports:
        show(report)
    write_json(given.json, reports)
    worst = max(max(report["compile"][2] - WORST_COMPILE_MS, report["mask"][2] - WORST_MASK_MS) for report in reports)
    return int(worst > 0)


# ---- grammars -----------------------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, str]]:
    yield "any object", grammar_text("json_object")
    yield "regex of a date and words", grammar_text("regex", r"\d{4}-\d{2}-\d{2}( \w+){1,20}")
    yield "choice of 3", grammar_text("choice", ["positive", "negative", "neutral"])
    yield "choice, as many as may be", grammar_text("choice", [f"choice {at}" for at in range(LIMITS.max_enum)])
    for name, schema in {**ordinary(), **extreme()}.items():
        yield name, grammar_text("json_schema", schema)


def ordinary() -> dict[str, Any]:
    word = {"type": "string", "maxLength": 40}
    point = closed({"x": {"type": "number"}, "y": {"type": "number"}})
    return {
        "person": closed({"name": word, "age": {"type": "integer", "minimum": 0}, "mail": {"format": "email"}}),
        "points": {"type": "array", "items": point, "minItems": 1, "maxItems": 20},
        "tree": {"type": "object", "properties": {"v": word, "kids": {"type": "array", "items": {"$ref": "#"}}}},
        "tagged": {"oneOf": [closed({"kind": {"const": kind}, "at": point}) for kind in "abc"]},
        "formats": closed(
            {name: {"format": name, "type": "string"} for name in ("uri", "ipv6", "date-time", "uuid")}
        ),
    }


def extreme() -> dict[str, Any]:
    """What the limits just let through, dimension by dimension."""
    patterns = [{"type": "string", "pattern": f"^[a-z]+{at}x[0-9]*$"} for at in range(LIMITS.max_patterns)]
    many = LIMITS.max_properties
    number = {"type": "integer"}
    deep: dict[str, Any] = number
    for _ in range(LIMITS.max_depth):
        deep = {"type": "object", "properties": {"a": deep}}
    return {
        "many properties": closed({f"p{at}": number for at in range(many)}, required=False),
        "many properties, open": {"type": "object", "properties": {f"p{at}": number for at in range(many)}},
        "many patterned properties": closed({f"p{at}": patterns[at] for at in range(many)}, required=False),
        "many objects of many properties": closed(
            {way: closed({f"p{at}{way}": True for at in range(many)}, required=False) for way in "abcdefghij"}
        ),
        "many branches": {
            "anyOf": [closed({f"p{at}{way}": True for at in range(5)}, required=False) for way in range(100)]
        },
        "many patterns": {"anyOf": [{"anyOf": patterns[at : at + 100]} for at in range(0, len(patterns), 100)]},
        "large enum": {"enum": [f"value {at * 7919 % 10007}" for at in range(LIMITS.max_enum)]},
        "deep": deep,
        "long string": {"type": "string", "minLength": LIMITS.max_length},
        "long patterned string": {"type": "string", "pattern": "^[a-z ]*$", "maxLength": LIMITS.max_length},
        "long array": {"type": "array", "items": number, "minItems": LIMITS.max_items},
        "large step": {"type": "integer", "multipleOf": LIMITS.max_multiple - 1},
        "nested repeats": {"type": "string", "pattern": "^((a{1,10}b){1,10}c){1,10}$"},
        "states of a pattern": {"type": "string", "pattern": "[ab]*a[ab]{20}c"},
        "chain of definitions": {
            "$ref": "#/$defs/0",
            "$defs": {
                str(at): {"type": "object", "properties": {"a": {"$ref": f"#/$defs/{at + 1}"}, "b": number}}
                for at in range(LIMITS.max_definitions - 1)
            }
            | {str(LIMITS.max_definitions - 1): number},
        },
        "intersections": {"allOf": [{"anyOf": [one_of(at, way) for way in range(4)]} for at in range(4)]},
    }


def closed(properties: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


def one_of(at: int, way: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"a{at}": {"const": way}}, "required": [f"a{at}"]}


def public(directory: Path, most: int) -> Iterator[tuple[str, str]]:
    files = sorted(file for file in directory.rglob("*.json") if file.parent.name == "data")
    for file in random.Random(1).sample(files, min(most, len(files))):  # noqa: S311
        try:
            text = grammar_text("json_schema", json.loads(file.read_text(encoding="utf-8"))["schema"])
            check(text)
        except GrammarError:
            continue
        yield file.stem, text


# ---- measurement --------------------------------------------------------------------------------------------------


def measure(size: int, grammars: dict[str, str], walks: int) -> dict[str, Any]:
    """Milliseconds of CPU time; takes are microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(DEMO_DIR if size == DEMO else write_tokenizer(Path(folder), size))
    for token in range(tokenizer.vocab_size):  # remembered by the tokenizer, which is not what is measured
        tokenizer.token_bytes(token)
    before, started = resident(), time.perf_counter()
    vocabulary = Vocabulary(tokenizer, size, tokenizer.eos_ids)
    seconds, memory = time.perf_counter() - started, resident() - before
    bench = Bench(vocabulary, tokenizer)
    lines = {name: bench.twice(text, walks) for name, text in grammars.items()}
    say(f"{size} tokens: {len(lines)} grammars")
    report = {kind: percentiles([time for line in lines.values() for time in line[kind]]) for kind in Bench.KINDS}
    slowest = sorted(((max(line["mask"]), max(line["compile"]), name) for name, line in lines.items()), reverse=True)
    faults = {name: line["error"] for name, line in lines.items() if line["error"]}
    return {
        "vocab": size,
        "setup_s": seconds,
        "setup_mib": memory,
        "slowest": slowest[:8],
        "faults": faults,
        "tokens_per_step": {name: len(line["take"]) / line["steps"] for name, line in lines.items() if line["steps"]},
        **report,
    }


class Bench:
    KINDS = ("check", "compile", "copy", "mask", "take", "forced")

    def __init__(self, vocabulary: Vocabulary, tokenizer: Tokenizer) -> None:
        self._vocabulary, self._ends = vocabulary, tokenizer.eos_ids
        self._mask = np.zeros_like(vocabulary.known)
        self._random = random.Random(1)  # noqa: S311

    def twice(self, text: str, walks: int) -> dict[str, Any]:
        """The same tokens, and of each time the smaller one: the machine has others to serve."""
        self._random.seed(1)
        first = self.run(text, walks)
        self._random.seed(1)
        second = self.run(text, walks)
        smaller = {kind: list(map(min, first[kind], second[kind])) for kind in self.KINDS}
        return {**smaller, "error": first["error"], "steps": first["steps"]}

    def run(self, text: str, walks: int) -> dict[str, Any]:
        times: dict[str, Any] = {kind: [] for kind in self.KINDS} | {"error": "", "steps": 0}
        grammars = Grammars(self._vocabulary, most=1)
        with_time(times["check"], lambda: check(text))
        with_time(times["compile"], lambda: grammars.compile(text))
        for _ in range(walks):
            matcher = with_time(times["copy"], lambda: grammars.matcher(text))
            drafts: list[int] = []
            for _ in range(STEPS):
                with_time(times["mask"], lambda: matcher.fill(self._mask))  # noqa: B023
                allowed = np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), bitorder="little"))
                token = int(self._random.choice(allowed)) if allowed.size else -1
                if token < 0 or token in self._ends:
                    break
                with_time(times["take"], lambda: matcher.take(token))  # noqa: B023
                times["steps"] += drafts[:1] != [token]
                forced = with_time(times["forced"], lambda: matcher.forced(MOST_DRAFTS))  # noqa: B023
                drafts = drafts[1:] if drafts[:1] == [token] else forced
            times["error"] = times["error"] or matcher.error
        return times


def with_time(times: list[float], call: Any) -> Any:
    started = time.thread_time_ns()
    result = call()
    times.append((time.thread_time_ns() - started) / 1e6)
    return result


def percentiles(times: Sequence[float]) -> list[float]:
    found: list[float] = np.percentile(times, [50, 99, 100]).tolist()
    return found


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 2**20


def show(report: dict[str, Any]) -> None:
    print(f"\n{report['vocab']} tokens: set-up {report['setup_s']:.2f} s, {report['setup_mib']:.0f} MiB")
    print(columns(("ms", "p50", "p99", "max"), [(kind, *report[kind]) for kind in Bench.KINDS]))
    print(columns(("slowest", "mask", "compile"), [(name, mask, made) for mask, made, name in report["slowest"]]))
    print(columns(("grammar", "tokens a step"), list(report["tokens_per_step"].items())))
    for name, fault in report["faults"].items():
        print(f"{name}: {fault}")


if __name__ == "__main__":
    sys.exit(main())

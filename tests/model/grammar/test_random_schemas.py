"""Schemas put together at random, all keywords at once: what is generated for them is judged by `jsonschema`."""

import random

import pytest

from scripts.verify.structured.conformance import Case, Judge

NAMES = ["a", "b", "ab", "n_1", "x"]
TYPES = ["object", "object", "object", "array", "string", "number", "integer", "boolean", ["string", "null"]]
SIMPLE = {
    "minLength": [0, 1, 2],
    "maxLength": [1, 3],
    "pattern": ["^a", "b$", "^[ab]+$", "a|b", r"^\w*$", "^.{1,3}$", r"\d"],
    "format": ["date", "ipv4", "colour"],
    "minimum": [-5, 0, 1.5, 3],
    "maximum": [2, 5.5, 100],
    "exclusiveMinimum": [0, 2.5],
    "exclusiveMaximum": [7, 8.25],
    "multipleOf": [2, 3, 0.5],
    "minItems": [0, 1, 2],
    "maxItems": [1, 3],
    "required": [["a"], ["b", "x"], ["n_1"]],
    "minProperties": [0, 1, 2],
    "maxProperties": [1, 3],
    "enum": [["a", 1, None, {"a": 1}], [[], ["a", 2.5], "b"]],
    "const": [0, "ab", {"b": []}],
    "$ref": ["#/$defs/p", "#/$defs/q"],
}


def draw(source: random.Random, depth: int):
    if source.random() < 0.06:
        return source.random() < 0.5
    schema = {"type": source.choice(TYPES)} if source.random() < 0.8 else {}
    for keyword, values in SIMPLE.items():
        if source.random() < 0.12:
            schema[keyword] = source.choice(values)
    if depth:
        schema |= {keyword: value for keyword, value in nested(source, depth - 1).items() if source.random() < 0.3}
    keywords = list(schema)
    source.shuffle(keywords)  # their order decides how the library puts them together
    return {keyword: schema[keyword] for keyword in keywords}


def nested(source: random.Random, depth: int):
    some = [draw(source, depth) for _ in range(source.randint(1, 3))]
    return {
        "properties": {name: draw(source, depth) for name in source.sample(NAMES, 3)},
        "additionalProperties": source.choice([False, draw(source, depth)]),
        "patternProperties": {source.choice(["^n_", "a", "^x$", "b$"]): draw(source, depth)},
        "items": draw(source, depth),
        "prefixItems": some,
        source.choice(["anyOf", "allOf", "oneOf"]): some,
    }


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_wrong(seed):
    source, judge, kinds = random.Random(seed), Judge(walks=4, seed=seed), []
    for _ in range(40):
        schema = {"allOf": [draw(source, 2)], "$defs": {"p": draw(source, 0), "q": draw(source, 1)}}
        verdict = judge.verdict(Case("random", schema, []))
        assert verdict.kind in ("right", "refused"), (verdict, schema)
        kinds.append(verdict.kind)
    assert 8 < kinds.count("right") < 40  # else it would mean little

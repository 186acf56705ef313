"""JSON schemas: what is generated is judged by `jsonschema`, what is refused is refused by name."""

import json

import pytest

from model.grammar import LIMITS, GrammarError, check, grammar_text
from scripts.verify.structured.conformance import Case, Judge


def closed(required=True, **properties):
    extra = {"required": list(properties)} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **extra}


TEXT, NUMBER, INTEGER = {"type": "string", "maxLength": 5}, {"type": "number"}, {"type": "integer"}
NODE = {"type": "object", "properties": {"v": INTEGER, "next": {"$ref": "#"}}, "additionalProperties": False}
DRAFT4, DRAFT7 = ({"$schema": f"http://json-schema.org/draft-0{n}/schema#"} for n in (4, 7))

HONOURED = {  # the schema, instances that it accepts in this order of keys, and some that it does not
    "anything": ({}, [1, "a", [{}], None], []),
    "flat": (closed(a=TEXT, b=INTEGER), [{"a": "x", "b": 1}], [{"a": "x"}, {"a": "xxxxxx", "b": 1}]),
    "optional": (closed(False, a=INTEGER, b=TEXT), [{}, {"b": ""}, {"a": 1}], [{"c": 1}]),
    "open": ({"properties": {"a": INTEGER}, "type": "object"}, [{"a": 1, "b": []}, {"c": 1}], [{"a": "1"}]),
    "open, typed": (
        {"type": "object", "properties": {"a": INTEGER}, "additionalProperties": {"type": "boolean"}},
        [{"a": 1, "b": True}],
        [{"b": 1}],
    ),
    "required, not listed": ({"type": "object", "required": ["z"], "maxProperties": 1}, [{"z": 1}], [{}]),
    "pattern properties": (
        {"type": "object", "patternProperties": {"^n_": INTEGER}, "additionalProperties": False},
        [{"n_a": 1}, {}],
        [{"a": 1}, {"n_a": ""}],
    ),
    "patterns of a few names": (
        {
            "type": "object",
            "properties": {"b": {"type": "integer"}},
            "patternProperties": {"^x$": INTEGER, "^(?:a|b)$": {"minimum": 3}},
            "required": ["x"],
            "additionalProperties": False,
        },
        [{"b": 3, "x": 1}, {"x": 1, "a": "z"}],
        [{"b": 2, "x": 1}, {"a": 1}],
    ),
    "one name at least": ({"type": "object", "minProperties": 1, "additionalProperties": INTEGER}, [{"a": 1}], [{}]),
    "bounds": ({"type": "number", "minimum": -3, "exclusiveMaximum": 7.5}, [-3, 7.4], [7.5, -4]),
    "bounds of draft 4": ({**DRAFT4, "type": "integer", "minimum": 3, "exclusiveMinimum": True}, [4], [3]),
    "steps": ({"type": "integer", "multipleOf": 7}, [0, -14, 21], [1]),
    "binary steps": ({"type": "number", "multipleOf": 0.25}, [0.75, 3], [0.1]),
    "enum": ({"enum": ["a", 1, None, True, [1, {"x": 2}], 1e-7, 'a/b\n"é']}, ["a", None, [1, {"x": 2}]], [False, 2]),
    "const beside type": ({"type": ["string", "null"], "const": None}, [None], ["None"]),
    "array": ({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 3}, [[1], [1, 2, 3]], [[], ["1"]]),
    "tuple": ({"type": "array", "prefixItems": [TEXT, INTEGER], "items": False}, [["a", 1], []], [["a", 1, 2]]),
    "tuple of draft 7": (
        {**DRAFT7, "type": "array", "items": [TEXT, INTEGER], "additionalItems": False, "minItems": 2},
        [["a", 1]],
        [["a"], ["a", 1, 2]],
    ),
    "any of": ({"anyOf": [INTEGER, {"type": "string", "pattern": "^[a-c]+$"}]}, [1, "abc"], ["d", 1.5]),
    "all of": ({"allOf": [{"minimum": 3}, {"type": "integer"}, {"maximum": 5}]}, [3, 4, 5], [2, 6]),
    "one of, by constant": (
        {"oneOf": [closed(k={"const": "a"}, x=INTEGER), closed(k={"const": "b"}, x=TEXT)]},
        [{"k": "a", "x": 1}, {"k": "b", "x": ""}],
        [{"k": "b", "x": 1}],
    ),
    "one of, by type": (
        {"oneOf": [{"type": "null"}, {"type": ["string"], "maxLength": 2}, NUMBER]},
        [None, "ab"],
        [],
    ),
    "one of, by reference": (
        {
            "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
            "$defs": {"a": closed(a=TEXT), "b": closed(b=TEXT)},
        },
        [{"a": ""}, {"b": ""}],
        [{"a": "", "b": ""}],
    ),
    "one of beside any of": (
        {"anyOf": [{"minimum": 3}, {"type": "string"}], "oneOf": [{"type": "integer"}, {"enum": ["x"]}]},
        [3, "x"],
        [2, "y"],
    ),
    "recursion": (NODE, [{"v": 1, "next": {"v": 2, "next": {}}}], [{"next": 1}]),
    "reference into properties": (
        {
            "properties": {"a~/b c": TEXT, "d": {"$ref": "#/properties/a~0~1b%20c"}},
            "type": "object",
            "required": ["d"],
        },
        [{"d": "x"}],
        [{"d": 1}],
    ),
    "draft 7 ignores what stands beside a reference": (
        {**DRAFT7, "$ref": "#/definitions/a", "type": "null", "definitions": {"a": INTEGER}},
        [1],
        [None],
    ),
    "newer drafts do not": ({"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": INTEGER}}, [1], [4]),
    "pattern and length": ({"type": "string", "pattern": "b", "maxLength": 3}, ["abc", "b"], ["abcd", "a"]),
    "pattern and format": ({"type": "string", "pattern": "^2024", "format": "date"}, ["2024-02-29"], ["2023-01-01"]),
    "an unknown format is an annotation": ({"type": "string", "format": "colour"}, ["x"], [1]),
    "unknown keywords are, too": ({"type": "null", "nullable": True, "x-guidance": {"lenient": True}}, [None], [1]),
    "keywords that say nothing": (
        {"type": "null", "uniqueItems": False, "dependencies": {}, "propertyNames": {}},
        [None],
        [1],
    ),
    "unique, of one": ({"type": "array", "uniqueItems": True, "maxItems": 1, "items": INTEGER}, [[1], []], [[1, 1]]),
    "an identifier below": ({"properties": {"a": {"$id": "http://a/b", "type": "null"}}}, [{"a": None}], [{"a": 1}]),
}


@pytest.fixture(scope="module")
def made() -> Judge:
    return Judge(walks=12, seed=5)


@pytest.fixture
def judge(made) -> Judge:
    made.reseed(5)
    return made


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured_is_right(kit, judge, name):
    schema, valid, invalid = HONOURED[name]
    verdict = judge.verdict(Case(name, schema, [(value, True) for value in valid]))
    assert (verdict.kind, verdict.why) == ("right", "")
    assert verdict.texts > 3
    for value in invalid:
        assert not kit.accepts("json_schema", schema, json.dumps(value, ensure_ascii=False)), value


ONE_OF = {"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}], "type": "integer"}
REFUSED = {  # keyword, schema, where
    "not": ({"properties": {"a": {"not": {"type": "null"}}}}, "#/properties/a/not"),
    "if": ({"items": {"if": {}, "then": {}}}, "#/items/if"),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, "#/dependentRequired"),
    "dependentSchemas": ({"dependentSchemas": {"a": {}}}, "#/dependentSchemas"),
    "dependencies": ({"dependencies": {"a": ["b"]}}, "#/dependencies"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "#/uniqueItems"),
    "contains": ({"contains": {}}, "#/contains"),
    "propertyNames": ({"propertyNames": {"maxLength": 3}}, "#/propertyNames"),
    "unevaluatedItems": ({"unevaluatedItems": False}, "#/unevaluatedItems"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, "#/unevaluatedProperties"),
    "$dynamicRef": ({"$dynamicRef": "#a"}, "#/$dynamicRef"),
    "$recursiveRef": ({"$recursiveRef": "#"}, "#/$recursiveRef"),
    "oneOf": ({"properties": {"a": ONE_OF}}, "#/properties/a/oneOf/1"),
    "minProperties": ({"type": "object", "minProperties": 2}, "#/minProperties"),
    "format": ({"format": "regex"}, "#/format"),
    "multipleOf": ({"multipleOf": 0.1}, "#/multipleOf"),
    "minimum": ({"minimum": 2**53 + 1}, "#/minimum"),
    "exclusiveMaximum": ({"exclusiveMaximum": 1e300}, "#/exclusiveMaximum"),
    "const": ({"const": {"a": "\x01"}}, "#/const/a"),
    "enum": ({"enum": [0, 12345678901234567890]}, "#/enum/1"),
    "pattern": ({"items": {"pattern": "(?=a)"}}, "#/items/pattern"),
    "patternProperties": ({"patternProperties": {r"\bx": {}}}, "#/patternProperties"),
    "$ref": ({"allOf": [{"$ref": "http://example.com/a"}]}, "#/allOf/0/$ref"),
    "$schema": ({"$schema": "http://example.com/mine"}, "#/$schema"),
    "$id": ({"$ref": "#/$defs/a", "$defs": {"a": {"$id": "http://a/"}}}, "#/$defs/a"),
    # malformed
    "type": ({"type": "text"}, "#/type"),
    "maxLength": ({"maxLength": -1}, "#/maxLength"),
    "items": ({"prefixItems": [], "items": 3}, "#/items"),
    "required": ({"required": "a"}, "#/required"),
    "properties": ({"properties": []}, "#/properties"),
    "anyOf": ({"anyOf": []}, "#/anyOf"),
}


@pytest.mark.parametrize("keyword", REFUSED)
def test_what_is_refused_is_refused_by_name_and_place(keyword):
    schema, pointer = REFUSED[keyword]
    with pytest.raises(GrammarError) as caught:
        grammar_text("json_schema", schema)
    if keyword != "items":
        assert caught.value.keyword == keyword
    assert caught.value.pointer == pointer
    assert str(caught.value).startswith(f"{pointer}: ")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "leads back to itself"),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#"}]}}}, "leads back to itself"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite value"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "no finite value"),
        ({"$ref": "#/$defs/a"}, "leads nowhere"),
        ({"$ref": "#anchor"}, "JSON pointer"),
        (False, "allows nothing"),
        (3, "is an object"),
        ('{"type"', "no JSON"),
    ],
)
def test_schemas_without_a_value_are_refused(schema, why):
    with pytest.raises(GrammarError, match=why):
        grammar_text("json_schema", schema)


def test_what_only_the_library_sees_is_refused_by_check():
    for schema in (
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "string", "pattern": "^a$", "minLength": 5},
        {"patternProperties": {"a": {"type": "null"}, "b": {"type": "string"}}, "type": "object"},
        {"properties": {"a": {}, "b": {}}, "type": "object", "maxProperties": 1},
    ):
        text = grammar_text("json_schema", schema)
        with pytest.raises(GrammarError, match="cannot be enforced"):
            check(text)


def test_an_escaped_name_cannot_stand_in_for_a_listed_one(kit):
    """JSON reads ``\\u0061`` as ``a``: an integer was asked for."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    assert kit.accepts("json_schema", schema, '{"b":"x"}')
    assert not kit.accepts("json_schema", schema, '{"\\u0061":"x"}')


def test_there_are_blanks_between_tokens_but_not_endless_ones(kit):
    schema = {"type": "array", "items": {"type": "integer"}}
    assert kit.accepts("json_schema", schema, "[\n    1,\t2 ]")
    assert kit.accepts("json_schema", schema, "[\n" + " " * 48 + "]")
    for blanks in ("  ", "\n\n", "\n" + " " * 49):
        assert not kit.accepts("json_schema", schema, f"[{blanks}]")


def test_annotations_and_the_way_a_schema_is_given_make_no_difference():
    plain = {"type": "object", "properties": {"a": {"type": "string"}}}
    titled = {"title": "T", "description": "d", **plain, "properties": {"a": {"default": "", "type": "string"}}}
    assert grammar_text("json_schema", plain) == grammar_text("json_schema", titled)
    assert grammar_text("json_schema", plain) == grammar_text("json_schema", json.dumps(plain))
    assert grammar_text("json_schema", {"type": "object"}) == grammar_text("json_object")
    swapped = closed(b=TEXT, a=TEXT)
    assert grammar_text("json_schema", swapped) != grammar_text("json_schema", closed(a=TEXT, b=TEXT))


def deep(levels, value):
    for _ in range(levels):
        value = {"type": "array", "items": value}
    return value


def patterned(count):
    return {f"p{at}": {"type": "string", "pattern": f"^x{at}[0-9]+$"} for at in range(count)}


HOSTILE = {
    "max_schema_bytes": {"description": "x" * 70_000},
    "max_depth": deep(100, {}),
    "max_schemas": {f"x{at}": 0 for at in range(2)} | {"anyOf": [{"anyOf": [{}] * 90}] * 90},
    "max_definitions": {
        "anyOf": [{"$ref": "#/$defs/0"}],
        "$defs": {str(at): {"items": {"$ref": f"#/$defs/{at + 1}"}} for at in range(600)} | {"600": {}},
    },
    "max_properties": {"type": "object", "properties": {f"p{at}": True for at in range(500)}},
    "max_patterns": {"anyOf": [closed(**patterned(240)), closed(**patterned(240)), closed(**patterned(240))]},
    "max_enum": {"enum": list(range(5000))},
    "max_branches": {"anyOf": [{}] * 2000},
    "max_width": {"allOf": [{"anyOf": [{}] * 30}] * 3},
    "max_length": {"type": "string", "maxLength": 2**31},
    "max_items": {"type": "array", "minItems": 10**6},
    "max_repeat": {"pattern": "^(a{100}){100}$"},
    "max_multiple": {"type": "integer", "multipleOf": 99991},
    "max_counting": closed(**{f"p{at}": {"pattern": "^a*$", "maxLength": at + 1} for at in range(150)}),
    "pattern": {"type": "string", "pattern": r"^(?:\S+\s+){0,99}\S+$", "maxLength": 3999},
}


@pytest.mark.parametrize("limit", HOSTILE)
def test_hostile_schemas_are_refused_and_the_limit_is_named(limit):
    with pytest.raises(GrammarError) as caught:
        check(grammar_text("json_schema", HOSTILE[limit]))
    assert caught.value.keyword == limit
    assert limit in str(caught.value)


def test_every_limit_of_what_clients_send_is_reached_by_one_of_these():
    names = {name for name in LIMITS.__dataclass_fields__ if name.startswith("max_")}
    assert names - HOSTILE.keys() == {"max_text_bytes", "max_grammar_size", "max_lexer_states", "max_items_in_row"}


def test_steps_multiply_over_the_whole_schema():
    with pytest.raises(GrammarError, match="max_multiple"):
        grammar_text("json_schema", {"allOf": [{"multipleOf": step} for step in (97, 101, 103)]})


def test_names_that_are_keywords_are_names(kit):
    """Of properties: nothing that looks through a schema may take them for keywords."""
    names = [
        "pattern",
        "patternProperties",
        "const",
        "enum",
        "$ref",
        "properties",
        "required",
        "not",
        "type",
        "items",
    ]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}, "required": names}
    assert kit.accepts("json_schema", schema, json.dumps(dict.fromkeys(names)))
    assert kit.accepts("json_schema", {"const": schema}, json.dumps(schema))

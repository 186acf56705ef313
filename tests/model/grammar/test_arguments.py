"""What a reader takes from a call is what its tool's schema says, in every form of calls; and where a call begins."""

from __future__ import annotations

import ast
import json

import jsonschema
import numpy as np
import pytest

from model.grammar import GrammarError, ToolShape, check, grammar_text
from model.response import RAW, TOOLS, Kind
from tests.model.grammar.answers import NOTE, ORDERS, SCHEMAS, WEATHER, calls, compiled, pieces, shape

pytest.importorskip("llguidance")
Validator = jsonschema.Draft202012Validator
FLAGGED = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "tag": {"enum": ["x", None]}},
    "required": ["on"],
}
PROPERTIES = {
    "lengths": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[a-c/<]{1,4}$"},
    "found": {"type": "string", "pattern": "b$", "maxLength": 6},
    "date": {"type": "string", "format": "date"},
    "address": {"type": "string", "format": "ipv4"},
    "listed": {"enum": ["a\nb", "", " x ", "null", "</p"]},
    "one": {"const": "x"},
    "mixed": {"type": ["string", "null"], "enum": ["a", None]},
    "typed": {"type": "string", "enum": ["1", 2, None]},
    "number": {"type": ["integer", "null"], "minimum": 3},
    "either": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
    "truths": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
    "nothing": {"type": "array", "items": {"type": "null"}, "maxItems": 1},
    "inner": FLAGGED,
    "some": {"type": "array", "items": {"$ref": "#/$defs/flagged"}, "maxItems": 2},
    "named": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "values": {"type": "array", "items": {"enum": [True, "True", 1.5, [None], {"a": False}]}, "maxItems": 2},
    "any": {},
    "twice": {"type": ["boolean", "string"], "maxLength": 3},
}


@pytest.mark.parametrize("form", ["hermes", "qwen3_coder", "llama_pythonic"])
@pytest.mark.parametrize("name", PROPERTIES)
def test_arguments_fit_their_schema(model, form, name):
    schema = {
        "type": "object",
        "properties": {"first": {"type": "integer"}, name: PROPERTIES[name], "last": {"type": "boolean"}},
        "required": [name],
        "$defs": {"flagged": FLAGGED},
    }
    asked = shape(model, form, tools=(ToolShape("f", schema),), least=1, most=1)
    text = compiled(asked)
    for _ in range(4):
        ids = try_marks(model, text, ["\n</parameter>\n", '"', "]", "</parameter><parameter=last>\n"])
        (call,), around = calls(pieces(model, asked, ids, {"f": schema}))
        assert not around
        Validator(schema, format_checker=Validator.FORMAT_CHECKER).validate(call[1])
        if form == "llama_pythonic":
            (written,) = ast.parse(model.text(ids).strip(), mode="eval").body.elts
            assert {one.arg: ast.literal_eval(one.value) for one in written.keywords} == call[1]


def follows(model, text, said):
    """Whether an answer may begin so; and end there."""
    matcher = model.grammars.matcher(text)
    return matcher.replay(model.ids(said)), matcher.may_end


@pytest.mark.parametrize("value", ["Paris", "Paris\n", "\n\nRe<b>", "", "a\r\nb"])
def test_a_text_may_end_before_its_length(model, value):
    schema = {"properties": {"c": {"type": "string", "maxLength": 12}}, "required": ["c"]}
    asked = shape(model, "qwen3_coder", tools=(ToolShape("f", schema),), least=1, most=1)
    said = f"<tool_call>\n<function=f>\n<parameter=c>\n{value}\n</parameter>\n</function>\n</tool_call>"
    assert follows(model, compiled(asked), said) == (True, True)
    assert calls(pieces(model, asked, model.ids(said), {"f": schema}))[0] == [("f", {"c": value})]


@pytest.mark.parametrize(("value", "fits"), [("a+b@c.d", True), ("a+b@", False), ("", False)])
def test_a_text_has_its_format(model, value, fits):
    schema = {"properties": {"c": {"type": "string", "format": "email"}}}
    text = compiled(shape(model, "qwen3_coder", tools=(ToolShape("f", schema),), least=1, most=1))
    assert follows(model, text, f"<tool_call>\n<function=f>\n<parameter=c>\n{value}\n</parameter>\n")[0] == fits


@pytest.mark.parametrize("more", [{}, {"maxLength": 99}, {"pattern": "o"}])
def test_a_text_has_no_other_parameter_in_it(model, more):
    schema = {"properties": {"c": {"type": "string", **more}, "n": {"type": "integer"}}, "required": ["c"]}
    text = compiled(shape(model, "qwen3_coder", tools=(ToolShape("f", schema),), least=1, most=1))
    said = "<tool_call>\n<function=f>\n<parameter=c>\nso</parameter><parameter=n>\nfoo\n</parameter>"
    assert not follows(model, text, said)[0]


def test_no_text_spells_a_mark_before_a_call_without_one(model):
    text = compiled(shape(model, "llama3_json", text=True))
    assert follows(model, text, "hi <|python_") == (True, True)
    assert not follows(model, text, "hi <|python_tag|>")[0]


def test_text_begins_no_reasoning(model):
    """In which a call would be none."""
    text = compiled(shape(model, reasoning="may", text=True))
    assert follows(model, text, "hi <thin") == (True, True)
    assert not follows(model, text, "hi <think>")[0]
    assert follows(model, text, "<think>hi </tool> </think>hi") == (True, True)


def test_marks_that_are_written_at_random_begin_calls(model):
    """Free text, in which the model tries to spell marks all the time, cut into tokens anywhere."""
    asked = shape(model, text=True, reasoning="may")
    text, made, answers = compiled(asked), 0, 0
    while answers < 12 or made < 7:
        answers += 1
        assert answers < 100
        ids = try_marks(model, text, ["<tool_call>", "</tool_call>", "<think>", "</think>"], least=80)
        found = pieces(model, asked, ids)
        made += sum(kind is Kind.CALL_END for kind, _ in found)
        for name, arguments in calls(found)[0]:
            jsonschema.validate(arguments, SCHEMAS[name] or {"type": "object"})


def try_marks(model, text, marks, least=0):
    """An answer of that many tokens; a mark, cut anywhere, is put in wherever the grammar lets it."""
    return next(ids for _ in range(20) if (ids := walk(model, text, marks, least)) is not None)


def walk(model, text, marks, least):
    matcher, ids, planned = model.grammars.matcher(text), [], []
    while not matcher.stopped:
        if len(ids) > 600:  # it has no end
            return None
        if not planned and model.rng.random() < 0.2:
            mark = marks[model.rng.integers(len(marks))]
            cut = int(model.rng.integers(len(mark) + 1) * model.rng.integers(2))
            planned = [*model.ids(mark[:cut]), *model.ids(mark[cut:])]
        allowed = model.allowed(matcher)
        logits = np.where(allowed, model.noise[model.rng.integers(64)], -np.inf)
        logits[2] -= 1000 * (len(ids) < least)
        token = planned.pop(0) if planned and allowed[planned[0]] else int(np.argmax(logits))
        if token == 2:
            break
        assert matcher.take(token)
        ids.append(token)
    return ids


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("bounds", [(2, 2), (2, 3), (3, None)])
def test_there_are_as_many_calls_as_are_asked_for(model, name, bounds):
    asked = shape(model, name, tools=ORDERS[1:2], least=bounds[0], most=bounds[1])
    made, _ = calls(pieces(model, asked, model.answer(compiled(asked))))
    assert bounds[0] <= len(made) <= (bounds[1] or 32)


def test_calls_that_are_demanded_come_amid_text_too(model):
    asked = shape(model, tools=ORDERS[1:2], least=2, most=2, text=True)
    text = compiled(asked)
    one = '<tool_call>\n{"name": "note", "arguments": {"tags": []}}\n</tool_call>'
    assert [follows(model, text, said) for said in (f"so {one}", f"so {one} and {one} done")] == [
        (True, False),
        (True, True),
    ]
    assert not follows(model, text, f"{one}{one} and <tool_call>")[0]


@pytest.mark.parametrize("form", TOOLS)
def test_names_may_have_all_that_the_apis_let_through(model, form):
    name = "mcp:files/a-b.c_D"
    asked = shape(model, form, tools=(ToolShape(name, NOTE), ToolShape("mcp", None)), least=1, most=1)
    for _ in range(4):
        ((made, _),), around = calls(pieces(model, asked, model.answer(compiled(asked)), {name: None, "mcp": None}))
        assert (made in (name, "mcp"), around) == (True, "")


@pytest.mark.parametrize("form", ["qwen3_coder", "llama_pythonic"])
@pytest.mark.parametrize("name", ["a b", "a>b", 'a"', "f(", "a;b", "a\n"])
def test_names_that_could_not_be_read_are_refused(model, form, name):
    with pytest.raises(GrammarError, match=r"of the tool .* the name can only have letters"):
        grammar_text("answer", shape(model, form, tools=(ToolShape(name, NOTE),), least=1))


@pytest.mark.parametrize("name", ["a>b", " a", ""])
def test_parameters_that_could_not_be_read_are_refused(model, name):
    schema = {"properties": {name: {"type": "string"}}}
    with pytest.raises(GrammarError, match="can't be an argument's name"):
        grammar_text("answer", shape(model, "qwen3_coder", tools=(ToolShape("f", schema),), least=1))


@pytest.mark.parametrize("definition", [r"[\s\S]*", r"\w+(\n\w+)*", "a\\n}?"])
def test_a_custom_tools_expression_ends(model, definition):
    """Though what ends it would be a part of it."""
    asked = shape(model, tools=(ToolShape("patch", None, ("regex", definition)),), least=1, most=1)
    said = '<tool_call>{"name": "patch", "input":\na\n\n}</tool_call>'
    assert follows(model, compiled(asked), said)[1] == (definition != r"\w+(\n\w+)*")
    ids = model.answer(compiled(asked), '<tool_call>{"name": "patch", "input":\na\n')
    (call,), _ = calls(pieces(model, asked, ids, {"patch": RAW}))
    assert call[1]["input"].startswith("a")


def test_equal_schemas_are_there_once_and_checked_together(model):
    one, many = (
        grammar_text(
            "answer", shape(model, tools=tuple(ToolShape(f"t{at}", WEATHER) for at in range(count)), least=1)
        )
        for count in (1, 64)
    )
    assert len(json.loads(many)["grammars"]) == len(json.loads(one)["grammars"]) == 2
    counting = [{"type": "string", "pattern": f"^[a-z]{{1,{at}}}$"} for at in range(2, 122)]
    tools = tuple(ToolShape(f"t{at}", {"properties": {"a": one}}) for at, one in enumerate(counting))
    with pytest.raises(GrammarError, match="max_counting"):
        check(grammar_text("answer", shape(model, tools=tools, least=1)))


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ('["a"]', True),
        ('["a < b", "</"]', False),
        ('["<b>"]', True),
        ('["</parameter>"]', False),
        ('[{"</parameter>": 1}]', False),
        ('[{"a": [{}, true, -1.5]}]', True),
        ('[{"a": "<a", "b": null}]', True),
    ],
)
def test_no_string_in_json_spells_the_end_of_its_parameter(model, value, fits):
    schema = {"properties": {"c": {"type": "array"}}}
    text = compiled(shape(model, "qwen3_coder", tools=(ToolShape("f", schema),), least=1, most=1))
    assert follows(model, text, f"<tool_call>\n<function=f>\n<parameter=c>\n{value}\n</parameter>\n")[0] == fits


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "string", "maxLength": 3}, "a\r", False),  # readers drop it
        ({"type": "string", "maxLength": 3}, "\ra", True),
        ({"type": ["string", "null"], "enum": ["null", "x"]}, "null", False),  # readers take it for none
        ({"type": ["string", "null"], "enum": ["x", None]}, "null", True),
        ({"type": ["string", "null"]}, "null", True),
    ],
)
def test_a_text_is_read_as_it_was_meant(model, schema, value, fits):
    text = compiled(shape(model, "qwen3_coder", tools=(ToolShape("f", {"properties": {"c": schema}}),), least=1))
    assert follows(model, text, f"<tool_call>\n<function=f>\n<parameter=c>\n{value}\n</parameter>\n<")[0] == fits


@pytest.mark.parametrize(
    ("form", "schema", "told"),
    [
        ("qwen3_coder", {"anyOf": [{"type": "integer"}, {"enum": [[]]}]}, "anyOf"),
        ("qwen3_coder", {"anyOf": [{"$ref": "#/$defs/p"}, {"type": "null"}]}, "anyOf"),
        ("llama_pythonic", {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 1}, "minItems"),
        ("llama_pythonic", {"$ref": "#/$defs/p"}, r"\$ref"),
    ],
)
def test_values_that_no_reader_would_take_are_refused(model, form, schema, told):
    loop = {"type": "object", "properties": {"on": {"type": "boolean"}, "next": {"$ref": "#/$defs/p"}}}
    tool = ToolShape("f", {"properties": {"c": schema}, "$defs": {"p": loop}})
    with pytest.raises(GrammarError, match=f"of the tool 'f', .*{told}"):
        check(grammar_text("answer", shape(model, form, tools=(tool,), least=1)))


def test_a_custom_tools_expression_spells_no_mark(model):
    """Where the mark is a token, it can't."""
    text = compiled(shape(model, tools=(ToolShape("patch", None, ("regex", "(.|\n)*")),), least=1, most=1))
    begun = '<tool_call>{"name": "patch", "input":\nsee '
    assert follows(model, text, f"{begun}</tool>\n}}</tool_call>") == (True, True)
    assert not follows(model, text, f"{begun}</tool_call>")[0]

"""Structured output: every form in which clients ask for it becomes the same grammar, or is refused by name."""

from __future__ import annotations

import json

import pytest

from model.grammar import grammar_text

pytest.importorskip("llguidance")
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
BY_SCHEMA, ANY_OBJECT = grammar_text("json_schema", SCHEMA), grammar_text("json_object")
DIGITS, CHOICE = grammar_text("regex", "[0-9]+"), grammar_text("choice", ["yes", "no"])
GBNF, LARK = 'root ::= "yes" | "no"', 'start: "yes" | "no"'
FORMS = [
    ({"response_format": {"type": "json_object"}}, ANY_OBJECT),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, BY_SCHEMA),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, BY_SCHEMA),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
        BY_SCHEMA,
    ),
    ({"response_format": {"type": "text"}}, ""),
    ({"response_format": None}, ""),
    ({"structured_outputs": {"json": SCHEMA}}, BY_SCHEMA),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, BY_SCHEMA),
    ({"structured_outputs": {"json_object": True, "json": None}}, ANY_OBJECT),
    ({"structured_outputs": {"json_object": False}}, ""),
    ({"structured_outputs": {"regex": "[0-9]+"}}, DIGITS),
    ({"structured_outputs": {"choice": ["yes", "no"]}}, CHOICE),
    ({"structured_outputs": {"grammar": GBNF}}, grammar_text("gbnf", GBNF)),
    ({"structured_outputs": {"grammar": LARK}}, grammar_text("lark", LARK)),
    ({"guided_json": SCHEMA}, BY_SCHEMA),
    ({"guided_regex": "[0-9]+"}, DIGITS),
    ({"guided_choice": ["yes", "no", "yes"]}, CHOICE),
    ({"guided_grammar": LARK}, grammar_text("lark", LARK)),
    ({"grammar": GBNF}, grammar_text("gbnf", GBNF)),
    ({"json_schema": SCHEMA}, BY_SCHEMA),
]


@pytest.mark.parametrize(("body", "grammar"), FORMS)
def test_each_form_is_the_same_grammar(shared, body, grammar):
    said = [{"role": "user", "content": "a form"}]
    for path, asked in (("completions", {"prompt": "a form"}), ("chat/completions", {"messages": said})):
        assert shared.http.post(f"/v1/{path}", json={**asked, "max_tokens": 1, **body}).status_code == 200
        assert shared.submitted("a form")["grammar"] == grammar


@pytest.mark.parametrize(
    ("value", "grammar"),
    [
        ({"type": "json", "value": SCHEMA}, BY_SCHEMA), ({"type": "regex", "value": "[0-9]+"}, DIGITS),
        ({"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}, BY_SCHEMA),
    ],
)  # fmt: skip
def test_that_of_tgi_in_llm_serving_s_api(shared, value, grammar):
    assert shared.generate("of tgi", grammar=value).status_code == 200
    assert shared.submitted("of tgi")["grammar"] == grammar


def test_all_choices_and_prompts_have_it(shared):
    body = {"prompt": ["many forms", "many forms"], "n": 2, "guided_regex": "[0-9]+", "max_tokens": 1}
    assert shared.http.post("/v1/completions", json=body).status_code == 200
    assert {shared.submitted("many forms")["grammar"] for _ in range(4)} == {DIGITS}


@pytest.mark.parametrize(
    ("body", "parameter", "told"),
    [
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "json_schema", "uniqueItems"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "not": {}}}}},
         "response_format", "not"),
        ({"guided_regex": "(?=a)b"}, "guided_regex", "(?="),
        ({"structured_outputs": {"grammar": "start: nothing"}}, "structured_outputs.grammar", "nothing"),
        ({"guided_json": '{"a":'}, "guided_json", "no JSON"),
        ({"guided_choice": [str(i) for i in range(5000)]}, "guided_choice", "max_enum"),
        ({"guided_json": SCHEMA, "guided_regex": "x"}, "guided_regex", "one form only"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "x"}}, "structured_outputs", "expected one of them"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag", "not supported"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "odd": 1}}},
         "response_format.json_schema.odd", "not supported"),
        ({"response_format": {"type": "xml"}}, "response_format", '"json_schema"'),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format", '"json_schema"'),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "no value"),
    ],
)  # fmt: skip
def test_what_can_not_be_enforced_is_refused_by_name(shared, body, parameter, told):
    for _ in range(2):  # the second time it is known
        answer = shared.http.post("/v1/completions", json={"prompt": "x", **body})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, parameter)
        assert told in error["message"]


def test_they_are_counted(serve):
    served = serve()
    served.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "guided_regex": "a+"})
    served.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "guided_regex": "(?=a)b"})
    metrics = served.http.get("/metrics").text
    assert "ringserve_grammars_total 2.0" in metrics
    assert "ringserve_refused_grammars_total 1.0" in metrics


def test_without_the_library_the_line_that_installs_it_is_told(serve):
    served = serve(without="llguidance")
    answer = served.http.post("/v1/completions", json={"prompt": "x", "guided_regex": "a+"})
    assert answer.status_code == 400
    assert "pip install" in answer.json()["error"]["message"]

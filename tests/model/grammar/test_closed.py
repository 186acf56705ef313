"""Which objects of a tool's arguments get no properties beside those that are listed."""

import pytest

from model.grammar.closed import closed

POINT = {"properties": {"x": {"type": "number"}}}
SHUT = {**POINT, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (POINT, SHUT),
        ({**POINT, "additionalProperties": True}, {**POINT, "additionalProperties": True}),
        ({**POINT, "required": ["y"]}, {**POINT, "required": ["y"]}),
        ({"items": POINT}, {"items": SHUT}),
        ({"anyOf": [POINT, {"type": "null"}]}, {"anyOf": [SHUT, {"type": "null"}]}),
        ({**POINT, "anyOf": [POINT]}, {**POINT, "anyOf": [POINT]}),
        ({"$ref": "#/$defs/p", "$defs": {"p": POINT}}, {"$ref": "#/$defs/p", "$defs": {"p": SHUT}}),
        (
            {"allOf": [{"$ref": "#/$defs/p"}, {"required": ["y"]}], "$defs": {"p": POINT}},
            {"allOf": [{"$ref": "#/$defs/p"}, {"required": ["y"]}], "$defs": {"p": POINT}},
        ),
    ],
)
def test_objects_are_closed_where_that_leaves_all_that_is_asked_for(schema, expected):
    assert closed(schema) == expected

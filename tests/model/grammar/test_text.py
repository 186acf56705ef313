"""The kinds of grammars beside JSON schemas, and what they are without llguidance."""

import subprocess
import sys

import pytest

from model.grammar import INSTALL, KINDS, LIMITS, GrammarError, available, check, grammar_text

GBNF = 'root ::= item ("," " "? item)*\nitem ::= [a-c]+ | "x y"'
LARK = 'start: "<" item ("," item)* ">"  // a comment with %json\nitem: %json {"type": "integer", "format": "money"}'


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("json_object", None, ['{"a": [1, null]}', "{}"], ["[1]", '"a"', '{"a": 1} ']),
        (
            "choice",
            ["yes", "no", 'a/b\n"c"', "é😀", "yes!"],
            ["yes", "yes!", 'a/b\n"c"', "é😀"],
            ["maybe", "yesno", ""],
        ),
        ("choice", ["", "x"], ["", "x"], ["xx"]),
        ("lark", LARK, ["<1,22>"], ["<>", "<a>"]),
        ("lark", 'start: "%json {" /[a-z]+/', ["%json {abc"], ["x"]),
        ("gbnf", GBNF, ["ab, x y"], ["d", ""]),
        ("ebnf", GBNF, ["ab,c"], ["ab,"]),
    ],
)
def test_kinds(kit, kind, value, good, bad):
    for text in good:
        assert kit.accepts(kind, value, text), text
    for text in bad:
        assert not kit.accepts(kind, value, text), text
    assert grammar_text(kind, value) == grammar_text(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "keyword"),
    [
        ("yaml", "x", "kind"),
        ("json_object", {"type": "object"}, "json_object"),
        ("choice", [], "choice"),
        ("choice", "yes", "choice"),
        ("choice", ["a", 1], "choice"),
        ("choice", list(map(str, range(LIMITS.max_enum + 1))), "max_enum"),
        ("regex", "", "regex"),
        ("regex", 3, "regex"),
        ("regex", "x" * 70_000, "max_schema_bytes"),
        ("lark", 'start: a\na[temperature=0.5]: "x"', "temperature"),
        ("lark", 'start: a\na[capture, stop="x"]: /.*/', "stop"),
        ("lark", "start: a\na[max_tokens=5]: /.*/", "max_tokens"),
        ("lark", '%llguidance {"no_forcing": true}\nstart: "x"', "%llguidance"),
        ("lark", 'start: %json {"not": {}}', "not"),
        ("lark", "start: %json {", "%json"),
        ("lark", "start: missing", "grammar"),
        ("lark", 'start: a\na: a "x"', "grammar"),
        ("gbnf", "root ::= [", "gbnf"),
    ],
)
def test_what_is_refused_is_named(kind, value, keyword):
    with pytest.raises(GrammarError) as caught:
        check(grammar_text(kind, value))
    assert caught.value.keyword == keyword


def test_a_text_with_too_much_in_it_is_refused():
    with pytest.raises(GrammarError, match="max_text_bytes"):
        check(grammar_text("json_object") + " " * LIMITS.max_text_bytes)


def test_kinds_are_those_that_are_documented():
    assert KINDS == ("answer", "json_object", "json_schema", "regex", "choice", "lark", "gbnf", "ebnf")


def test_the_library_is_imported_only_when_it_is_needed():
    code = "import sys, model.grammar as g; g.grammar_text('json_object'); print('llguidance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch):
    assert available()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert not available()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ringserve\[grammar\]'"):
        check(grammar_text("json_object"))
    assert "structured output" in INSTALL

"""Regular expressions, against Python's `re` and, where it differs, ECMA-262."""

import json
import re
import warnings

import pytest

from model.grammar import GrammarError, grammar_text

SAMPLES = ["", "a", "b", "ab", "xaby", "aab", "é", "1", "٣", "a-b", "a&b", "[", "]", "^", "\\", "/", "\n", "a\n", " "]
SAMPLES += ["\u00a0", "\ufeff", "{2}", "a{,3}", "😀", '"', "~", "A", "_", "aaa", "a b c", "-", "\t", "\u2028", "x.y"]
PATTERNS = [
    r"^a", r"b$", r"^a|b$", r"^(a|b)$", r"a|", r"(a|^)b", r"^[^a]$", r"^[a-c]+$", r"^[-a]$", r"^[a&&b]$",
    r"^[a~~b]$", r"^[[]$", r"^[\]]$", r"^[\\]$", r"^\/$", r"^\^$", r"^[\^]$", r"^.$", r"^.*$", r"^a{2,3}$",
    r"^a{1}b$", r"^(?:a|b){2}$", r"^a+?b$", r"^\x61$", r"^\u0061$", r"^\ud83d\ude00$", r"^\t$", r"^(?<n>a)b$",
    r"^(?P<n>a)b$", r"^\d$", r"^\w$", r"^\s$", r"^[\w-]$", r"^[\d.]$", r"^[^\d]$", r"^a\{,3\}$", r"^a\.b|x\.y$",
    r"^[\s\S]$", r"^[~^]$", r'^["]$', r"^😀$", r"^\S+$", r"^\D$", r"^\W$", r"^[^\w\s]$", r"^[\x2d-\x2f]$",
    r"^\{2}$", r"^]$",
]  # fmt: skip
NARROWER = {
    r"^\d$",
    r"^\w$",
    r"^.$",
    r"^\s$",
    r"^.*$",
    r"^[\w-]$",
    r"^[\d.]$",
}  # Python's also match signs that ECMA's do not


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_re_finds_it(kit, pattern):
    own = re.sub(r"\(\?<(?![=!])", "(?P<", pattern.replace(r"\ud83d\ude00", "😀")).replace(
        "$", r"\Z"
    )  # not before \n
    with warnings.catch_warnings(action="ignore"):  # of set operators that Python may have one day
        python = re.compile(own)
    prototype = kit.matcher("json_schema", {"type": "string", "pattern": pattern})
    found = 0
    for sample in SAMPLES:
        written = json.dumps(sample, ensure_ascii=False)
        matcher = prototype.copy()
        accepted = matcher.replay(kit.ids(written)) and matcher.may_end
        expected = python.search(sample) is not None
        if pattern in NARROWER or sample in ("\ufeff", "\u2028"):
            assert expected or not accepted, sample
        else:
            assert accepted == expected, sample
        found += accepted
    assert found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)", "look-around"),
        ("(?!a)b", "look-around"),
        ("(?<=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-reference"),
        (r"(?<n>a)\k<n>", "back-reference"),
        (r"\ba", "word boundary"),
        ("(?i)a", "inline flags"),
        (r"\Aa\Z", "not one of ECMA-262"),
        ("a++", "possessive"),
        ("a{,3}", "different engines"),
        ("[]a]", "different engines"),
        ("*a", "nothing that could be repeated"),
        ("a**", "nothing that could be repeated"),
        ("a{3,2}", "empty"),
        ("(a", "without its"),
        ("a)", "without its"),
        ("[a", "too early"),
        ("[b-a]", "upside down"),
        ("[a--b]", "upside down"),
        (r"\ud83d", "surrogate"),
        ("a\\", "too early"),
        ("(a{50}){50}", "max_repeat"),
    ],
)
def test_what_is_refused(pattern, why):
    with pytest.raises(GrammarError, match=why) as caught:
        grammar_text("json_schema", {"items": {"pattern": pattern}})
    assert caught.value.pointer == "#/items/pattern"


def test_unicode_properties(kit):
    for pattern, good, bad in ((r"^\p{Lu}$", "É", "é"), (r"^[\p{L}\d]$", "é", "-"), (r"^\P{L}$", "-", "é")):
        schema = {"type": "string", "pattern": pattern}
        assert kit.accepts("json_schema", schema, json.dumps(good, ensure_ascii=False))
        assert not kit.accepts("json_schema", schema, json.dumps(bad, ensure_ascii=False))


@pytest.mark.parametrize(
    ("regex", "good", "bad"),
    [
        ("[0-9]{2}", ["12"], ["1", "123"]),
        ("^ab$", ["ab"], ["xab"]),
        ("a|b$", ["a", "b"], ["ab"]),
        (r'"\/\n', ['"/\n'], ["x"]),
        ("(yes|no)( please)?", ["yes", "no please"], ["please"]),
    ],
)
def test_a_regex_has_to_match_the_whole_answer(kit, regex, good, bad):
    for text in good:
        assert kit.accepts("regex", regex, text)
    for text in bad:
        assert not kit.accepts("regex", regex, text)


@pytest.mark.parametrize("regex", ["a^b", "a$b", "(^a)", "(a$)b"])
def test_anchors_inside_of_a_regex_are_refused(regex):
    with pytest.raises(GrammarError, match="whole text"):
        grammar_text("regex", regex)

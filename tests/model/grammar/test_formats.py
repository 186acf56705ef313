"""Formats: texts drawn from the masks are judged by the checkers of `jsonschema`, which its extras bring."""

import json

import jsonschema
import pytest

from model.grammar.formats import ENFORCED
from scripts.verify.structured.conformance import Case, Judge

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
EXAMPLES = {  # valid, and invalid
    "date": (["2024-02-29", "2000-02-29", "1999-12-31"], ["2023-02-29", "1900-02-29", "2024-04-31", "0000-01-01"]),
    "time": (["12:00:00Z", "23:59:59.123+01:00"], ["23:59:60Z", "24:00:00Z", "12:00:00"]),
    "date-time": (["2024-02-29T12:00:00Z"], ["2024-02-29 12:00:00Z", "2023-02-29T12:00:00Z", "1990-12-31T23:59:60Z"]),
    "duration": (["P1Y2M3DT4H5M6S", "P3W", "PT36H"], ["P", "PT", "P1YT", "P1Y1D", "1Y"]),
    "email": (["a.b+c@example.com"], ["a@", "@b", "a b@c.d"]),
    "hostname": (["a", "www.a-b.example.com"], ["-a", "a-.b", "a..b", "a" * 64]),
    "ipv4": (["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (["::", "::1", "1::", "2001:db8::8:800:200c:417a", "1:2:3:4:5:6:7:8"],
             [":::", "1:2:3:4:5:6:7", "1::2::3", "12345::"]),
    "uuid": (["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08-aa98-11ea-b4aa73b441d16380"]),
    "uri": (["http://a:b@c.d:80/e/f?g#h", "urn:x:y", "mailto:a@b.c", "http://[::1]/"],
            ["/a/b", "a b:c", "http://a b"]),
    "uri-reference": (["/a/b?c", "#x", "", "a/b", "http://a"], ["a b", "\\"]),
    "json-pointer": (["", "/a~0b/~1"], ["a", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "2#"], ["/a", "-1", "01"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Judge:
    return Judge(walks=40, seed=3)


@pytest.fixture
def judge(made) -> Judge:
    made.reseed(3)
    return made


@pytest.mark.parametrize("name", ENFORCED)
def test_what_is_generated_passes_the_checker(kit, judge, name):
    assert name in CHECKER.checkers, "a checker of jsonschema[format-nongpl] is missing: this test would mean nothing"
    verdict = judge.verdict(Case(name, {"type": "string", "format": name}, []))
    assert (verdict.kind, verdict.why) == ("right", "")
    assert verdict.texts > 2
    prototype = kit.matcher("json_schema", {"type": "string", "format": name})
    good, bad = EXAMPLES[name]
    for text in (*good, *bad):
        matcher = prototype.copy()
        assert (matcher.replay(kit.ids(json.dumps(text))) and matcher.may_end) == (text in good), text
    assert all(CHECKER.conforms(text, name) for text in good)

"""JSON values that servers have stumbled over, as the bytes that a client sends."""

from __future__ import annotations

import json
from random import Random

NUMBERS = (
    b"0", b"-0", b"-0.0", b"1", b"-1", b"1.0", b"0.5", b"1e-400", b"1e308", b"-1e308", b"1e400", b"-1e400",
    b"5e-324", b"2147483647", b"2147483648", b"-2147483649", b"4294967296", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"9" * 40,
    b"9" * 400, b"1" + b"0" * 5000, b"0." + b"1" * 5000, b"1e99999999999999999999", b"00", b"01", b"+1", b".5",
    b"1.", b"0x10", b"1_000", b"NaN", b"Infinity", b"-Infinity", b"1e", b"--1",
)  # fmt: skip

TEXTS = (
    b'""', b'" "', b'"a"', b'"\\u0000"', b'"a\\u0000b"', b'"\x00"', b'"\n"', b'"\\ud800"', b'"\\udfff\\ud800"',
    b'"\\ud83d\\ude00"', b'"\\u0000\\u0001\\uffff"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"',
    b'"\xf8\x88\x80\x80\x80"', b'"\xe2\x80"', b'"\xef\xbb\xbf"', b'"\\x41"', b'"\\u12"', b'"unclosed', b'"\\"',
    b"'single'", b'"<|im_start|>"', b'"</s><s>"', b'"%s%n%d{0}"', b'"../../etc/passwd"', b'"True"', b'"nan"',
    b'"1e5"', b'"' + b"\\u4e2d" * 50 + b'"', '"zürich 漢字 \N{GRINNING FACE} \u202e\u0301"'.encode(),
)  # fmt: skip

WORDS = (b"null", b"true", b"false", b"True", b"None", b"undefined", b"nul", b"tru", b"")


def hostile(random: Random) -> bytes:
    """A value of any kind, which may not even be JSON."""
    kind = random.randrange(12)
    if kind < 4:
        return random.choice(NUMBERS)
    if kind < 7:
        return random.choice(TEXTS)
    if kind < 8:
        return random.choice(WORDS)
    return random.choice(_SHAPES)(random)


def _list(random: Random) -> bytes:
    return b"[" + b",".join(hostile(random) for _ in range(random.randrange(4))) + b"]"


def _object(random: Random) -> bytes:
    pairs = (random.choice(TEXTS) + b":" + hostile(random) for _ in range(random.randrange(3)))
    return b"{" + b",".join(pairs) + b"}"


def _deep(random: Random) -> bytes:
    depth = random.choice((2, 10, 100, 500, 1000, 1021, 1022, 1023, 1024, 1025, 5000, 50_000))
    inner = random.choice((b"", b"1", b'"x"', b"null"))
    if random.random() < 0.5:
        return b"[" * depth + inner + b"]" * (depth if random.random() < 0.8 else depth // 2)
    return b'{"a":' * depth + (inner or b"1") + b"}" * depth


def _long_text(random: Random) -> bytes:
    unit = random.choice((b"x", b" ", b"\\n", b"ring buffer ", b"\\ud83d\\ude00", "漢".encode(), b"\\u0000"))
    return b'"' + unit * (random.choice((100, 4095, 4097, 20_000, 60_000)) // len(unit)) + b'"'


def _long_list(random: Random) -> bytes:
    item = random.choice((b"1", b"-1", b"2047", b"2048", b'"x"', b"[]", b"{}", b"null", b"1.5", b"[1]", b"true"))
    return b"[" + b",".join([item] * random.choice((1, 64, 65, 128, 1024, 1025, 20_000))) + b"]"


def _many_keys(random: Random) -> bytes:
    count = random.choice((10, 1000, 1025, 8000))
    return b"{" + b",".join(b'"%d":1' % (i * random.choice((1, 1, 7))) for i in range(count)) + b"}"


_SHAPES = (_list, _list, _object, _deep, _long_text, _long_list, _many_keys)


def encoded(value: object) -> bytes:
    """Plain JSON."""
    return json.dumps(value, separators=(",", ":")).encode()

"""Requests whose end could be read in several ways, each with what is right about it.

The body of each is itself a request, `SMUGGLED`: a server that finds another end than we do would execute it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

SMUGGLED_ID = b"smuggled"
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + SMUGGLED_ID + b"\r\n\r\n"
LENGTH = str(len(SMUGGLED)).encode()
SIZE = b"%x" % len(SMUGGLED)
CHUNKED = SIZE + b"\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"
CODED = b"Transfer-Encoding: chunked"


@dataclass(frozen=True)
class Framing:
    """`right`: it is one request, after which the connection can be used; else it is refused, and the last."""

    name: str
    headers: tuple[bytes, ...]
    body: bytes
    right: bool
    line: bytes = b"GET /version HTTP/1.1"
    end: bytes = b"\r\n"

    @property
    def head(self) -> bytes:
        lines = [self.line, b"Host: x", b"X-Request-Id: first", *self.headers]
        return b"".join(line + self.end for line in lines) + self.end

    @property
    def message(self) -> bytes:
        return self.head + self.body

    @property
    def closes(self) -> bool:
        """The client does not want to go on."""
        return b"HTTP/1.0" in self.line or any(header.lower() == b"connection: close" for header in self.headers)


Named = Mapping[str, tuple[bytes, ...]]
Bodies = dict[str, tuple[tuple[bytes, ...], bytes, bool]]
"""Headers, body, and whether that is right."""

UPGRADES: Named = {
    "none": (),
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"),
    "websocket": (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "unknown": (b"connection: upgrade", b"upgrade: foo"),
    "by proxy": (b"Proxy-Connection: upgrade", b"Upgrade: foo"),
    "alone": (b"Upgrade: foo",),
    "empty": (b"Connection: upgrade", b"Upgrade:"),
    "kept": (b"Connection: keep-alive, Upgrade", b"Upgrade: a, b"),
}
CONNECTIONS: Named = {"default": (), "kept": (b"Connection: keep-alive",), "closed": (b"Connection: close",)}
EXPECTATIONS: Named = {"none": (), "continue": (b"Expect: 100-continue",), "unknown": (b"Expect: foo",)}

LENGTHS = {
    "exact": ((b"Content-Length: " + LENGTH,), True),
    "other case": ((b"cONTENT-lENGTH: " + LENGTH,), True),
    "blanks around": ((b"Content-Length: \t " + LENGTH + b" \t",), True),
    "leading zeros": ((b"Content-Length: 000" + LENGTH,), True),
    "plus": ((b"Content-Length: +" + LENGTH,), False),
    "minus": ((b"Content-Length: -" + LENGTH,), False),
    "hexadecimal": ((b"Content-Length: 0x" + SIZE,), False),
    "point": ((b"Content-Length: " + LENGTH + b".0",), False),
    "exponent": ((b"Content-Length: 5e1",), False),
    "underscore": ((b"Content-Length: 5_0",), False),
    "two numbers": ((b"Content-Length: " + LENGTH + b" 0",), False),
    "list": ((b"Content-Length: " + LENGTH + b"," + LENGTH,), False),
    "list of others": ((b"Content-Length: 0, " + LENGTH,), False),
    "empty": ((b"Content-Length:",), False),
    "blank": ((b"Content-Length:  ",), False),
    "word": ((b"Content-Length: many",), False),
    "huge": ((b"Content-Length: 1" + b"0" * 30,), False),
    "beyond 64 bits": ((b"Content-Length: 18446744073709551669",), False),
    "twice": ((b"Content-Length: " + LENGTH,) * 2, False),
    "twice, others": ((b"Content-Length: 0", b"Content-Length: " + LENGTH), False),
    "twice, others first": ((b"Content-Length: " + LENGTH, b"Content-Length: 0"), False),
    "with a coding": ((b"Content-Length: " + LENGTH, CODED), False),
    "behind a coding": ((CODED, b"Content-Length: " + LENGTH), False),
    "zero with a coding": ((b"Content-Length: 0", CODED), False),
    "blank before the colon": ((b"Content-Length : " + LENGTH,), False),
    "folded": ((b"Content-Length:", b" " + LENGTH), False),
    "behind a fold": ((b"X: y", b" Content-Length: " + LENGTH), False),
    "with NUL": ((b"Content-Length: " + LENGTH + b"\0",), False),
    "with a vertical tab": ((b"Content-Length: \v" + LENGTH,), False),
}
CODINGS = {
    "chunked": ((CODED,), True),
    "other case": ((b"tRANSFER-eNCODING: CHUNKED",), True),
    "blanks around": ((b"Transfer-Encoding:  chunked  ",), True),
    "tabs around": ((b"Transfer-Encoding:\tchunked\t",), False),  # they are allowed; the parser does not know them
    "identity": ((b"Transfer-Encoding: identity",), False),
    "unknown": ((b"Transfer-Encoding: xchunked",), False),
    "cut": ((b"Transfer-Encoding: chunke",), False),
    "more": ((b"Transfer-Encoding: chunkedx",), False),
    "quoted": ((b'Transfer-Encoding: "chunked"',), False),
    "with a parameter": ((b"Transfer-Encoding: chunked;q=1",), False),
    "two": ((b"Transfer-Encoding: gzip, chunked",), False),
    "two, other order": ((b"Transfer-Encoding: chunked, gzip",), False),
    "identity behind": ((b"Transfer-Encoding: chunked, identity",), False),
    "list of twice": ((b"Transfer-Encoding: chunked, chunked",), False),
    "empty element": ((b"Transfer-Encoding: , chunked",), False),
    "twice": ((CODED, CODED), False),
    "identity and chunked": ((b"Transfer-Encoding: identity", CODED), False),
    "chunked and identity": ((CODED, b"Transfer-Encoding: identity"), False),
    "empty": ((b"Transfer-Encoding:",), False),
    "blank before the colon": ((b"Transfer-Encoding : chunked",), False),
    "folded": ((b"Transfer-Encoding:", b" chunked"), False),
    "behind a fold": ((b"X: y", b" Transfer-Encoding: chunked"), False),
    "with NUL": ((b"Transfer-Encoding: chunked\0",), False),
    "with a vertical tab": ((b"Transfer-Encoding: \vchunked",), False),
    "with a carriage return": ((b"Transfer-Encoding: chunked\r",), False),
}
CHUNKS = {
    "one": (CHUNKED, True),
    "two": (b"1\r\n" + SMUGGLED[:1] + b"\r\n%x\r\n" % (len(SMUGGLED) - 1) + SMUGGLED[1:] + b"\r\n0\r\n\r\n", True),
    "capitals, zeros": (b"000" + SIZE.upper() + b"\r\n" + SMUGGLED + b"\r\n000\r\n\r\n", True),
    "extension": (SIZE + b';a=b;c="d"\r\n' + SMUGGLED + b"\r\n0;e\r\n\r\n", True),
    "trailers": (CHUNKED[:-2] + b"X-A: b\r\nX-B: c\r\n\r\n", True),
    "hexadecimal sign": (b"0x" + CHUNKED, False),
    "plus": (b"+" + CHUNKED, False),
    "minus": (b"-" + CHUNKED, False),
    "blank before": (b" " + CHUNKED, False),
    "underscore": (b"0_" + CHUNKED, False),
    "no size": (b"\r\n" + CHUNKED, False),
    "beyond 64 bits": (b"1" + b"0" * 16 + CHUNKED, False),
    "line feed alone": (CHUNKED.replace(b"\r\n", b"\n", 1), False),
    "carriage return alone": (CHUNKED.replace(b"\r\n", b"\r", 1), False),
    "longer than said": (b"%x\r\n" % (len(SMUGGLED) - 1) + CHUNKED[len(SIZE) + 2 :], False),
    "shorter than said": (b"%x\r\n" % (len(SMUGGLED) + 1) + CHUNKED[len(SIZE) + 2 :], False),
    "NUL in an extension": (CHUNKED.replace(b"\r\n", b";\0\r\n", 1), False),
    "line feed in an extension": (CHUNKED.replace(b"\r\n", b";\n\r\n", 1), False),
    "length as a trailer": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n", False),
    "coding as a trailer": (CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", False),
    "trailer with a fold": (CHUNKED[:-2] + b"X: y\r\n z\r\n\r\n", False),
}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "line feeds alone": {"end": b"\n"},
    "carriage returns alone": {"end": b"\r"},
    "NUL in a value": {"headers": (b"X: a\0b",)},
    "NUL in a name": {"headers": (b"X\0: a",)},
    "line feed in a value": {"headers": (b"X: a\nContent-Length: 0",)},
    "carriage return in a value": {"headers": (b"X: a\rContent-Length: 0",)},
    "no colon": {"headers": (b"X",)},
    "no name": {"headers": (b": x",)},
    "blank in a name": {"headers": (b"X Y: z",)},
    "fold first": {"headers": (b" X: y",)},
    "HTTP/1.2": {"line": b"GET /version HTTP/1.2"},
    "HTTP/2.0": {"line": b"GET /version HTTP/2.0"},
    "HTTP/0.9": {"line": b"GET /version HTTP/0.9"},
    "preface of HTTP/2": {"line": b"PRI * HTTP/2.0"},
    "no version": {"line": b"GET /version"},
    "small letters": {"line": b"get /version HTTP/1.1"},
    "CONNECT": {"line": b"CONNECT x:80 HTTP/1.1"},
    "CONNECT with a body": {"line": b"CONNECT x:80 HTTP/1.1", "headers": (b"Content-Length: " + LENGTH,)},
    "coding in HTTP/1.0": {"line": b"GET /version HTTP/1.0", "headers": (CODED,), "body": CHUNKED},
    "upgrade and line feeds": {"end": b"\n", "headers": (*UPGRADES["h2c"], b"Content-Length: " + LENGTH)},
}


def cases() -> Iterator[Framing]:
    """Every kind of head with every right way to say where the body ends, and every wrong way with every Upgrade."""
    lengths = {name: (headers, SMUGGLED, right) for name, (headers, right) in LENGTHS.items()}
    codings = {name: (headers, CHUNKED, right) for name, (headers, right) in CODINGS.items()}
    chunks = {name: ((CODED,), body, right) for name, (body, right) in CHUNKS.items()}
    none: Bodies = {"none": ((), b"", True), "zero": ((b"Content-Length: 0",), b"", True)}
    for kind, bodies in (("length", lengths), ("coding", codings), ("chunks", chunks), ("body", none)):
        for name, (headers, body, right) in bodies.items():
            for upgrade, connection, expectation in product(UPGRADES, CONNECTIONS, EXPECTATIONS):
                if not right and (connection != "default" or expectation == "unknown"):
                    continue  # they make no difference to what is refused at once
                more = UPGRADES[upgrade] + CONNECTIONS[connection] + EXPECTATIONS[expectation]
                for order in (more + headers, headers + more) if more else (headers,):
                    yield Framing(f"{kind}: {name}, {upgrade}, {connection}, {expectation}", order, body, right)
    for name, changes in HEADS.items():
        headers = changes.get("headers", (b"Content-Length: " + LENGTH,))
        yield Framing(name, headers, changes.get("body", SMUGGLED), False, changes.get("line", Framing.line),
                   changes.get("end", Framing.end))  # fmt: skip

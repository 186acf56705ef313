"""HTTP messages around a body: right ones, and ones that are wrong as HTTP."""

from __future__ import annotations

from random import Random

from scripts.verify.fuzz import bodies

GET_PATHS = (
    "/health", "/ready", "/metrics", "/v1/models", "/v1/models/emulated", "/serving/get_bs", "/version",
    "/serving/get_request_numbers", "/serving/get_serverd_model_info", "/openapi.json", "/nowhere",
    "/api/tags", "/api/ps", "/api/version", "/ping", "/load", "/tokenizer_info", "/models", "/models/emulated",
    "/v1/models/org/fine-1.5:v2", "/models/fine", "/v1/usage", "/admin/weights",
    "/v1/streams/" + 32 * "0",
    "/v1/responses/resp_" + 32 * "0", "/v1/streams/" + 32 * "0" + "?starting_after=3",
    "/v1/responses/x?stream=true&starting_after=0",
)  # fmt: skip

CANCEL_PATHS = (
    b"/v1/requests/named/cancel",
    b"/v1/requests/%6eamed/cancel",
    b"/v1/responses/resp_" + b"0" * 32 + b"/cancel",
)
"""The first two are of requests that `cases.py` names."""

_METHODS = (
    b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"PROPFIND", b"CONNECT", b"PRI", b"get",
    b"PoSt", b"G\x00ET", b"", b" GET", b"GET\t", b"X" * 300, b"\xff\xfe", b"M-SEARCH", b"SOURCE",
)  # fmt: skip
_TARGETS = (
    b"/", b"*", b"health", b"//health", b"/health//", b"/health/../metrics", b"/%00", b"/%ff%fe", b"/%", b"/%zz",
    b"/health?x=%00", b"/health?" + b"a=b&" * 500, b"/health#x", b"http://example.org/health", b"example.org:80",
    b"/" + b"a" * 5000, b"/\xc3\xa9", b"/\xff", b"/hea lth", b"/health\x00", b"/models//generate",
    b"/models/%2e%2e", b"/models/other/generate", b"/debug/trace?seconds=0", b"/debug/trace?seconds=nan",
    b"/debug/trace?seconds=-1", b"/debug/trace?seconds=1e9", b"/debug/trace?seconds=", b"/metrics?name[]=x",
    b"//", b"///health", b"//api/tags", b"//models//emulated", b"/models/emulated/", b"/api/", b"/api/nowhere",
    b"/v1/responses/resp_1", b"/v1/messages/batches", b"/v1/responses/resp_1/cancel", b"/v1/requests//cancel",
    b"/admin", b"/admin/", b"/admin/weights/x", b"/admin/weights?folder=/", b"/admin/%2e%2e/health",
    b"/v1/streams/", b"/v1/streams/%00%ff", b"/v1/streams/" + b"x" * 900, b"/v1/streams/a/b",
    b"/v1/streams/x?starting_after=" + b"9" * 400, b"/v1/responses/%f0%9f%98%80?stream=%ff&starting_after=-1",
    b"/v1/requests/%00%ff/cancel", b"/v1/requests/" + b"x" * 900 + b"/cancel", b"/v1/requests/a/b/cancel",
    b"/admin/nodes", b"/admin/", b"//admin/nodes/",
    b"?", b"", b"/v1/models/" + b"x" * 900, b"/v1/models/%f0%9f%98%80", b"http://[::1", b"http:///", b"\\health",
)  # fmt: skip
_VERSIONS = (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1", b"HTTP/1.1.1", b"HTTP/-1.1",
             b"HTTP/1.1 x", b"http/1.1", b"", b"HTTP/11", b"FTP/1.1", b"HTTP/1.\xb2")  # fmt: skip
_HEADERS = (
    b"no colon", b": empty name", b" : blank name", b"X: a\r\n b", b"X: a\r\n\tb", b"X : y", b"X\x00: y",
    b"X: \x00", b"X: \x7f\x01", b"X: " + b"\xff" * 50, b"\xc3\xa9: x", b"X:", b"X: " + b"y" * 9000,
    b"X" * 3000 + b": y", b"Content-Length: 0", b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 5", b"Content-Length: -1", b"Content-Length: +3", b"Content-Length: 0x10",
    b"Content-Length: 1e3", b"Content-Length: " + b"9" * 30, b"Content-Length: 99999999999",
    b"Content-Length: 4294967296", b"Content-Length:", b"Content-Length: a", b"Content-Length: 3 3",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding : chunked", b"Content-Encoding: gzip",
    b"Content-Encoding: identity", b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: ",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", b"Upgrade: tls/1.0",
    b"Connection: keep-alive", b"Connection: close, keep-alive", b"Connection: " + b"x," * 400,
    b"Host: a\r\nHost: b", b"Authorization: Bearer " + b"x" * 5000, b"Authorization: Bearer \xff",
    b"Authorization: ", b"X-Api-Key: x", b"api-key: \xff",
    b"Cookie: " + b"a=b;" * 900, b"X-Ringserve-Timings: 1", b"X-Request-Id: \x01\x02",
    b"Traceparent: 00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01", b"Traceparent: \xff-1-1-1",
    b"X-Detached-S: 1", b"X-Detached-S: 0.01", b"X-Detached-S: -1", b"X-Detached-S: " + b"9" * 400, b"X-Detached-S:",
    b"X-Detached-S: \xb2", b"X-Detached-S: nan", b"Last-Event-ID: 1", b"Last-Event-ID: \xff", b"Last-Event-ID: -1",
    b"X-Request-Id: " + b"x" * 2000, b"Origin: null", b"X-Request-Timeout-Ms: 1", b"X-Request-Timeout-Ms: -1",
    b"X-Request-Timeout-Ms: " + b"9" * 400, b"X-Request-Timeout-Ms: \xb2", b"X-Request-Timeout-Ms:",
    b"Origin: https://example.org\r\nAccess-Control-Request-Method: POST", b"Range: bytes=0-",
    b"Accept: text/html", b"Content-Type: text/plain", b"Content-Type: multipart/form-data; boundary=x",
    b"TE: trailers", b"Trailer: X", b"Proxy-Connection: x", b"X-Forwarded-For: 127.0.0.1",
    b"Accept-Encoding: gzip, br",
)  # fmt: skip
_OPENINGS = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 40,
    b"\r\n\r\n\r\n", b"\n\n", b"GET\r\n\r\n", b"GET /health\r\n\r\n", b"GET  /health HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n", b"{}", b"SSH-2.0-OpenSSH_9.0\r\n", b"GET /health HTTP/1.1\n\n",
    b"GET /health HTTP/1.1\r\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"EHLO example.org\r\n", b"\xff\xfb\x1f",
    b"GET /health HTTP/1.1\r\n\n",
)  # fmt: skip


def request(method: bytes, target: bytes, body: bytes = b"", headers: tuple[bytes, ...] = ()) -> bytes:
    """A request that is well formed if its parts are."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: x", *headers]
    if body or method == b"POST":
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(target: bytes, body: bytes, random: Random, headers: tuple[bytes, ...] = ()) -> bytes:
    """A POST in chunks of any size."""
    parts, place = [], 0
    while place < len(body):
        size = random.choice((1, 2, 7, 50, 1000, len(body)))
        part = body[place : place + size]
        extension = random.choice((b"", b"", b"", b";x=y", b";" + b"z" * 200, b';q="a;b"'))
        parts.append((b"%x" if random.random() < 0.7 else b"%08X") % len(part) + extension + b"\r\n" + part + b"\r\n")
        place += size
    trailers = random.choice((b"", b"", b"X: y\r\n", b"Content-Length: 5\r\n", b"A: b\r\n" * 50))
    head = [b"POST " + target + b" HTTP/1.1", b"Host: x", *headers, b"Transfer-Encoding: chunked"]
    return b"\r\n".join(head) + b"\r\n\r\n" + b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


def malformed(random: Random) -> bytes:
    """What a parser has to find wrong, or may find right."""
    return random.choice(
        (_odd_line, _odd_headers, _odd_headers, _odd_headers, _odd_chunks, _many_headers, _opening, _flipped)
    )(random)


def _odd_line(random: Random) -> bytes:
    method, target, version = b"GET", b"/health", b"HTTP/1.1"
    for _ in range(random.choice((1, 1, 2))):
        place = random.randrange(3)
        method = random.choice(_METHODS) if place == 0 else method
        target = random.choice(_TARGETS) if place == 1 else target
        version = random.choice(_VERSIONS) if place == 2 else version
    return method + b" " + target + b" " + version + b"\r\nHost: x\r\n\r\n"


def _odd_headers(random: Random) -> bytes:
    headers = tuple(random.choice(_HEADERS) for _ in range(random.choice((1, 1, 2, 3))))
    if random.random() < 0.3:
        return request(b"GET", random.choice(GET_PATHS).encode(), headers=headers)
    path = random.choice(bodies.PATHS)
    return request(b"POST", path.encode(), bodies.valid(path, random), headers)


def _odd_chunks(random: Random) -> bytes:
    path = random.choice(bodies.PATHS)
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    sizes = (
        b"", b"-1", b"g", b"0x5", b"5 ", b" 5", b"f" * 17, b"7fffffffffffffff", b"ffffffff", b"5;" + b"x" * 5000,
        b"5\x00", b"00000000000000000000005", b"5\n", b"5\r", b"+5", b"5;\xff", b"5;a=\"",
    )  # fmt: skip
    return head + random.choice(sizes) + b"\r\n" + random.choice((b"12345\r\n", b"1234567", b"1", b"")) + b"0\r\n\r\n"


def _many_headers(random: Random) -> bytes:
    count = random.choice((100, 255, 256, 257, 1000, 8000))
    name = random.choice((b"X", b"Host", b"Cookie", b"Content-Type", b"Authorization"))
    return request(b"GET", b"/health", headers=tuple(name + b": %d" % i for i in range(count)))


def _opening(random: Random) -> bytes:
    return random.choice(_OPENINGS) + (random.randbytes(random.randrange(200)) if random.random() < 0.3 else b"")


def _flipped(random: Random) -> bytes:
    path = random.choice(bodies.PATHS)
    data = bytearray(request(b"POST", path.encode(), bodies.valid(path, random)))
    for _ in range(random.randrange(1, 4)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)

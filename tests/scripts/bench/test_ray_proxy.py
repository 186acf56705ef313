"""What passes answers on, before a server that answers in chunks and one that does not; without Ray."""

from __future__ import annotations

import asyncio

from scripts.bench.ray_proxy import passing_on

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    b"5\r\none\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
)
WHOLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nfull"


def passed_on(answer):
    """What the server was asked, and what the application sent."""

    async def talk():
        asked = []

        async def serve(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head + await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r")[0])))
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        application = passing_on(server.sockets[0].getsockname()[1])
        parts, sent = [{"body": b"{", "more_body": True}, {"body": b"}"}], []

        async def receive():
            return parts.pop(0)

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"elsewhere")]
        await application({"type": "http", "method": "POST", "path": "/x", "headers": headers}, receive, send)
        server.close()
        return asked[0], sent

    return asyncio.run(talk())


def test_chunks_are_passed_on_as_they_come():
    asked, (start, *chunks) = passed_on(CHUNKED)
    assert asked.startswith(b"POST /x HTTP/1.1\r\nhost: bench\r\n")
    assert asked.endswith(b"content-type: application/json\r\n\r\n{}")
    assert (start["status"], start["headers"]) == (200, [(b"content-type", b"text/event-stream")])
    assert [chunk["body"] for chunk in chunks] == [b"one\r\n", b"two", b""]
    assert [chunk.get("more_body", False) for chunk in chunks] == [True, True, False]


def test_an_answer_in_one_piece():
    _, (start, body) = passed_on(WHOLE)
    assert (start["status"], start["headers"]) == (503, [(b"retry-after", b"1")])
    assert body == {"type": "http.response.body", "body": b"full"}

"""Memory is bounded whatever clients do: a whole server, and clients that do not read, do not send, or sit there."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest

from scripts.lab.processes import resident_bytes
from tests.server.launched import wait_until

ROWS = 4
LONG = (
    "model_config.max_generate_length=4096",
    "model_config.seq_length=4000",
    f"model_config.decode_batch_size={ROWS}",
    f"pa_config.num_blocks={ROWS * 256 + 1}",
    "pipeline.runner.cost_model.fixed_ms=0",
)
FORGETFUL = ROWS  # clients that do not read; each asks for 2 MB


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def connect(server):
    """A connection whose client takes little."""
    host, port = server.base.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    return connection


def ask_for_much(connection, name):
    body = json.dumps(
        {"prompt": f"much {name}", "max_tokens": 3500, "logprobs": 20, "stream": True, "ignore_eos": True}
    )
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("pipeline.write_timeout_s=1", "the client did not read for 1 s"),
        ("pipeline.stream_buffer_tokens=100", "the client did not read 100 tokens"),
    ],
)
def test_clients_that_do_not_read_are_cut_off(own, limit, why):
    """They give back their rows, and less is held for them than they asked for. Others are served meanwhile."""
    server = own(*LONG, limit)
    front = server.stages()["front"]
    server.generate("warm", 20)
    assert server.metric("ringserve_num_requests_running") == 0  # over a connection that stays
    before, open_before = resident_bytes(front), descriptors(front)
    most = 0
    with contextlib.ExitStack() as stack:
        for i in range(FORGETFUL):
            ask_for_much(stack.enter_context(connect(server)), i)
        assert server.generate("others", 20).json()["generated_text"] == server.text("others", 20)

        def cut_off():
            nonlocal most
            most = max(most, resident_bytes(front))
            return server.metric('ringserve_requests_total{outcome="cancelled"}') == FORGETFUL

        wait_until(cut_off, "they are not cut off", 60)
        wait_until(
            lambda: descriptors(front) <= open_before, "their connections stay"
        )  # though they do not close them
    assert server.metric("ringserve_num_requests_running") == 0
    assert server.metric("ringserve_kv_blocks_used") == 0
    assert most - before < 2 * FORGETFUL << 20
    assert server.end() == 0
    assert "".join(server.said).count(f"cancelled: {why}") == FORGETFUL


def test_connections_that_just_sit_there_are_closed(own):
    """Silent ones, and ones with half a request, a third more than may be open at a time."""
    server = own("pipeline.max_connections=150", "pipeline.keep_alive_s=1", "pipeline.header_timeout_s=1")
    server.client.close()
    front = server.stages()["front"]
    before = descriptors(front)
    with contextlib.ExitStack() as stack:
        sitting = [stack.enter_context(connect(server)) for _ in range(200)]
        for connection in sitting[::2]:
            with contextlib.suppress(ConnectionError):  # one of those for whom there was no room
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n")
        wait_until(lambda: descriptors(front) <= before, "they stay")
        for connection in sitting:
            connection.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass  # an error, or nothing; then the end
    assert server.generate("after", 5).json()["generated_text"] == server.text("after", 5)
    assert server.end() == 0

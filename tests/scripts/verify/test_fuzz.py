"""Thousands of cases against a whole server, and that the fuzzer would notice what it is there to notice.

`make fuzz` runs 100,000.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from scripts.verify.fuzz.answers import BadAnswerError, check_answer, check_count, read_answers
from scripts.verify.fuzz.cases import _KINDS, Case, Ending, make_case
from scripts.verify.fuzz.client import Client

JSON = b"content-type: application/json\r\n"
ERROR = b'{"error": {"message": "m", "type": "t", "param": null, "code": null}}'


@pytest.mark.timeout(900)
def test_thousands_of_cases():
    command = [sys.executable, "-m", "scripts.verify.fuzz", "--cases", "2500", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    for status in (200, 400, 404, 405, 408, 413, 415, 422, 431):
        assert f" x {status}" in done.stdout, "a kind of answer never came: the cases are not what they should be"


def test_cases_follow_from_the_seed_alone():
    assert make_case(1, 5) == make_case(1, 5)
    assert make_case(1, 5) != make_case(2, 5)
    made = "print([(m(3, i).data, m(3, i).ending) for i in range(300)])"
    code = f"from scripts.verify.fuzz.cases import make_case as m; {made}"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
        digests.add(hashlib.sha256(out).hexdigest())
    assert len(digests) == 1


def test_every_kind_of_case_is_made():
    assert sum(share for share, _ in _KINDS) == pytest.approx(1)
    endings = Counter(make_case(1, number).ending for number in range(2000))
    assert set(endings) == set(Ending)
    assert endings[Ending.READ] > 1500


REFUSED = b"HTTP/1.1 400 Bad Request\r\n" + JSON + b"content-length: %d\r\n\r\n" % len(ERROR) + ERROR
GOOD = [
    b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    REFUSED,
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {}\n\ndata: [DONE]\n\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"
    b'{"error":"the answer was not complete within the 1 ms that the request allows"}\n',
]  # fmt: skip
BAD = [
    b"HTTP/1.1 500 Internal Server Error\r\n" + JSON + b"content-length: %d\r\n\r\n" % len(ERROR) + ERROR,
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(ERROR) + ERROR,
    b"HTTP/1.1 400 Bad Request\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    b"HTTP/1.1 400 Bad Request\r\n" + JSON + b"content-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 1\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + JSON + JSON + b"content-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n3\r\n{}\r\n0\r\n\r\n",
    b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {"error": {}}\n\n',
    b"HTTP/1.1 200 OK\r\n" + JSON, b"nonsense", b"HTTP/1.1 OK\r\n\r\n", GOOD[0] + b"nonsense",
    REFUSED.replace(b'"m"', b'"/srv/pipeline/front/app.py"').replace(b"length: 69", b"length: 95"),
]  # fmt: skip


@pytest.mark.parametrize("data", GOOD)
def test_a_good_answer(data):
    answers = read_answers(data, bodiless=False)
    assert len(answers) == 1
    check_answer(answers[0])


@pytest.mark.parametrize("data", BAD)
def test_a_bad_answer_is_noticed(data):
    with pytest.raises(BadAnswerError):
        for answer in read_answers(data, bodiless=False):
            check_answer(answer)


def test_an_answer_too_many_is_noticed():
    answers = read_answers(GOOD[0] * 2, bodiless=False)
    check_count(answers, 2)
    check_count(answers, None)
    for count in (1, 3):
        with pytest.raises(BadAnswerError, match=f"2 answers in place of {count}"):
            check_count(answers, count)
    smuggled = GOOD[0].replace(JSON, JSON + b"x-request-id: smuggled\r\n")
    with pytest.raises(BadAnswerError, match="taken for a request"):
        check_count(read_answers(smuggled, bodiless=False), 1)


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "no end within"), (b"", "without an answer"), (BAD[0], "status 500")]
)
def test_a_server_that_misbehaves_is_noticed(answer, why):
    failures = []

    async def misbehave(reader, writer):
        if answer is not None:
            await reader.read(100)
            writer.write(answer)
            writer.close()
        else:
            await reader.read()  # until the client has lost its patience
            writer.close()

    async def run():
        async with await asyncio.start_server(misbehave, "127.0.0.1", 0) as server:
            client = Client(server.sockets[0].getsockname()[1], lambda _, why: failures.append(why), patience_s=0.5)
            await client.run([Case(1, (b"GET /health HTTP/1.1\r\n\r\n",))], 1)

    asyncio.run(run())
    assert [why in failure for failure in failures] == [True]

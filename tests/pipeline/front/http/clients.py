"""What tests of connections share."""

from __future__ import annotations

import json
import time

GENERATE = "/models/llama2/generate"
STREAM = "/models/llama2/generate_stream"


def body_of(prompt, **parameters):
    return {"inputs": prompt, "parameters": parameters}


def status_and_error(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]


def gone(served, timeout=10):
    """Until no request is in flight."""
    deadline = time.monotonic() + timeout
    while served.metric("ringserve_requests_in_flight"):
        assert time.monotonic() < deadline
        time.sleep(0.02)

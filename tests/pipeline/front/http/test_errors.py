"""Errors as clients get them."""

from __future__ import annotations

import json

from pipeline.front.http.errors import INVALID, OVERLOADED, ApiError, retry_later


def test_the_form_that_openai_s_clients_know():
    error = ApiError(404, "no such model", parameter="model", code="model_not_found")
    assert json.loads(error.body()) == {
        "error": {"message": "no such model", "type": INVALID, "param": "model", "code": "model_not_found"}
    }
    assert str(error) == "no such model"


def test_when_to_come_again():
    error = retry_later(429, "full", OVERLOADED, 3)
    assert (error.status, error.kind, list(error.headers)) == (429, OVERLOADED, [(b"retry-after", b"3")])

"""Golden files: a request, and the answer to it in full, fields and order of events included.

A file in golden/ holds ``METHOD path``, a line of JSON to send if there is any, an empty line, and the answer:
status, headers that tell something, and the body. What differs from run to run is masked. After a change that is
wanted, run with RINGSERVE_WRITE_GOLDEN=1 and read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "golden").glob("*.txt"))
HEADERS = ("content-type", "x-request-id", "retry-after", "cache-control", "allow")
MASKS = {
    r'"created":\d+': '"created":0',
    r'"(cmpl|chatcmpl)-[0-9a-f]{32}"': r'"\1-X"',
    r'"version":"[^"]+"': '"version":"X"',
}


def masked(text):
    for pattern, replacement in MASKS.items():
        text = re.sub(pattern, replacement, text)
    return text


def ask(served, method, path, content):
    headers = {"content-type": "application/json", "x-request-id": "golden"}
    answer = served.http.request(method, path, content=content.encode(), headers=headers)
    told = [f"{name}: {answer.headers[name]}" for name in HEADERS if name in answer.headers]
    return "\n".join([str(answer.status_code), *told, "", masked(answer.text)])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(shared, file):
    request, _, expected = file.read_text(encoding="utf-8").partition("\n\n")
    first, _, content = request.partition("\n")
    method, path = first.split(" ", 1)
    answer = ask(shared, method, path, content)
    if os.environ.get("RINGSERVE_WRITE_GOLDEN"):
        file.write_text(f"{request}\n\n{answer}\n", encoding="utf-8")
        return
    assert answer + "\n" == expected


def test_there_is_one_for_each_form():
    forms = "chat completion detokenize error generate models serving tokenize version"
    assert {file.stem.split("-")[0] for file in FILES} == set(forms.split())

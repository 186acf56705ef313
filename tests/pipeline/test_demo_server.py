"""The demo configuration as a newcomer starts it: the shipped model, mindformers, four processes."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from model.demo import DEMO_DIR

ROOT = Path(__file__).parents[2]
GOLDEN = [json.loads(line) for line in (Path(DEMO_DIR) / "golden.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["true", "false"], ids=["overlapped", "plain"])
def server(request):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.launch", "--config", str(ROOT / "configs" / "demo.yaml"),
         "--set", "serving_config.server_port=0", "--set", f"pipeline.overlap={request.param}"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    said = []
    base = None
    for line in process.stderr:
        said.append(line)
        if "listening on" in line:
            base = line.split()[-1]
            break
    assert base, "".join(said)
    with httpx.Client(base_url=base, timeout=120) as client:
        yield client
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(20) == 0
        rest = process.stderr.read()
        assert "Traceback" not in rest, rest
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stderr.close()
    print(f"stopped after {time.monotonic() - started:.1f} s")
    assert not [path for path in Path("/dev/shm").iterdir() if f"-{process.pid}-" in path.name]


def complete(client, entry):
    body = {"model": "ringserve-demo", "prompt": entry["prompt_ids"], "max_tokens": 120, "temperature": 0}
    answer = client.post("/v1/completions", json=body).json()
    return answer["choices"][0]["text"].strip(), answer["choices"][0]["finish_reason"]


def test_the_answers_are_those_of_the_model_driven_alone(server):
    """The golden answers were made by transformers from the same weights."""
    for entry in GOLDEN[:6]:
        assert complete(server, entry) == (entry["answer"].strip(), "stop")


def test_in_company_they_are_the_same(server):
    crowd = GOLDEN * 2
    with concurrent.futures.ThreadPoolExecutor(len(crowd)) as pool:
        answers = list(pool.map(lambda entry: complete(server, entry), crowd))
    assert answers == [(entry["answer"].strip(), "stop") for entry in crowd]


def test_the_readmes_curl_answers_sensibly(server):
    body = {"inputs": "Question: What is a ring buffer?\nAnswer:", "parameters": {"max_new_tokens": 80}}
    answer = server.post("/models/llama2/generate", json=body).json()
    assert "fixed size" in answer["generated_text"]
    assert answer["finish_reason"] == "eos"

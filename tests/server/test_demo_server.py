"""The demo configuration as a newcomer starts it: the shipped model, mindformers, four processes."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.demo import DEMO_DIR
from scripts.lab.server import launched
from tests.model.conftest import needs_openvino
from tests.model.numpy_llama import NumpyLlama
from tests.server.launched import run_launcher

ROOT = Path(__file__).parents[2]
GOLDEN = [json.loads(line) for line in (Path(DEMO_DIR) / "golden.jsonl").read_text().splitlines()]


OVERLAPPED = pytest.param((), id="overlapped")
PLAIN = pytest.param(("pipeline.overlap=false", "pipeline.runner.kind=auto"), id="plain")  # what starts sooner


@pytest.fixture(scope="module", params=[OVERLAPPED, PLAIN])
def server(request, tmp_path_factory):
    log = tmp_path_factory.mktemp("demo") / "log"
    with launched(ROOT / "configs" / "demo.yaml", request.param, log) as running:
        with httpx.Client(base_url=running.base_url, timeout=120) as client:
            yield client
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0
        assert "Traceback" not in running.log_text(), running.log_text()
    assert not [path for path in Path("/dev/shm").iterdir() if f"-{running.pid}-" in path.name]


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


@pytest.mark.parametrize("length", [5, 150])
def test_scores_of_a_prompt_are_those_of_another_decoder(server, length):
    """In double precision, from the papers; a prompt of one piece, and one of several."""
    ids = (GOLDEN[0]["prompt_ids"] + GOLDEN[1]["prompt_ids"][1:] * 20)[:length]
    body = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1, "prompt_logprobs": 5}
    (choice,) = server.post("/v1/completions", json=body).json()["choices"]
    logits = NumpyLlama(Path(DEMO_DIR)).logits(np.array(ids)).astype(np.float64)
    exact = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    found, best = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
    np.testing.assert_allclose(found[1:], exact[np.arange(length - 1), ids[1:]], atol=1e-3)
    greedy = [one == max(top.values()) for one, top in zip(found[1:], best[1:], strict=True)]
    assert greedy == (exact[:-1].argmax(1) == ids[1:]).tolist()
    for listed, row in zip(choice["prompt_logprobs"][1:], exact, strict=False):
        ranked = sorted((one["rank"], int(token)) for token, one in listed.items() if one["rank"])
        assert [token for _, token in ranked] == np.argsort(-row, kind="stable")[:5].tolist()


def test_the_readmes_curl_answers_sensibly(server):
    body = {"inputs": "Question: What is a ring buffer?\nAnswer:", "parameters": {"max_new_tokens": 80}}
    answer = server.post("/models/llama2/generate", json=body).json()
    assert "fixed size" in answer["generated_text"]
    assert answer["finish_reason"] == "eos"


def test_a_chat_gets_the_answers_that_were_taught(server):
    """The chat template, in one message and in a conversation that is gone on with."""
    questions = [json.loads(line) for line in (Path(DEMO_DIR) / "questions.jsonl").read_text().splitlines()]
    for entry in questions[:4]:
        messages = [{"role": "user", "content": entry["questions"][0]}]
        answer = server.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).json()
        assert answer["choices"][0]["message"]["content"] == entry["answer"]
        assert answer["choices"][0]["finish_reason"] == "stop"
    question, answer = questions[0]["questions"][0], questions[0]["answer"]
    begun = " ".join(answer.split(" ")[:3])
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": begun}]
    body = {"messages": messages, "temperature": 0, "continue_final_message": True}
    rest = server.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert begun + rest == answer


@pytest.mark.parametrize(
    ("engine", "blocks", "kept"),
    [
        pytest.param(["pipeline.runner.kind=mindspore"], 64, "*", id="mindspore"),
        pytest.param(["pipeline.runner.weight_dtype=int8"], 32, "openvino-*", id="openvino", marks=needs_openvino),
    ],
)
def test_a_folder_is_enough(tmp_path, monkeypatch, engine, blocks, kept):
    """`serve DIR`: its name, what it says at start, and that it answers; what was compiled, or quantized, stays for
    the next start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = ["pipeline.max_rows=1", "pipeline.token_budget=16", *engine]  # few graphs to compile
    with launched(Path(DEMO_DIR), few, tmp_path / "log") as running:
        with httpx.Client(base_url=running.base_url, timeout=120) as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "demo"
            body = {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is a ring buffer?"}],
                "temperature": 0,
            }
            answer = client.post("/v1/chat/completions", json=body).json()
        assert "fixed size" in answer["choices"][0]["message"]["content"]
        assert f"pa_config.num_blocks = {blocks}: room for 1 x 1024 tokens" in running.log_text()
        assert ("pipeline.runner.kind = openvino: it is installed" in running.log_text()) == (blocks == 32)
        assert running.stop() == 0
    assert list((tmp_path / "cache/ringserve/compile").glob(kept))


EXAMPLE = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\s*```(?:json|text)\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
EXAMPLES = EXAMPLE.findall((ROOT / "docs" / "api.md").read_text())
AGENTS = [one for one in EXAMPLE.findall((ROOT / "README.md").read_text()) if "OpenAI(" in one[1]]


@pytest.mark.parametrize("server", [OVERLAPPED], indirect=True)
@pytest.mark.parametrize(
    ("language", "example", "expected"), EXAMPLES + AGENTS, ids=range(len(EXAMPLES) + len(AGENTS))
)
def test_the_examples_of_the_api_s_page(server, language, example, expected):
    """As they stand, but for the address; what is printed is what the page shows, where … stands for anything."""
    program = {"sh": ["bash", "-ec"], "python": [sys.executable, "-W", "error", "-c"]}[language]
    example = example.replace("http://127.0.0.1:8835", str(server.base_url).rstrip("/"))
    done = subprocess.run([*program, example], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    pattern = ".*?".join(map(re.escape, expected.strip().split("…")))
    assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), done.stdout


def test_every_example_of_the_api_s_page_is_found():
    page = (ROOT / "docs" / "api.md").read_text()
    assert len(EXAMPLES) == len(re.findall(r"^```(?:sh|python)$", page, re.MULTILINE)) > 8
    assert all(expected for _, _, expected in EXAMPLES)
    assert len(AGENTS) == 1


def test_interrupted_while_it_compiles_it_leaves_no_file(tmp_path):
    """MindSpore writes down what it could not compile, and mindformers logs; neither where it was started."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    left_behind = temporary / "ringserve-mindformers-of-one-that-was-killed"
    here.mkdir()
    left_behind.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.launch", "--config", str(ROOT / "configs" / "demo.yaml"),
         "--set", "serving_config.server_port=0", "--set", "pipeline.runner.compile_cache=none"],
        stderr=subprocess.PIPE, text=True, cwd=here, start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    said = []
    for line in process.stderr:
        said.append(line)
        if "compiling" in line:
            time.sleep(0.5)  # into the part of it that MindSpore would write down
            process.send_signal(signal.SIGINT)
    try:
        assert process.wait(20) == 0, "".join(said)
    finally:
        process.stderr.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "interrupted while starting" in "".join(said)
    assert not list(here.iterdir())
    assert not left_behind.exists()


def test_weights_that_are_not_numbers_are_told_at_start(tmp_path):
    """One row of the embedding, which few prompts would meet."""
    shutil.copytree(DEMO_DIR, tmp_path / "model", ignore=shutil.ignore_patterns("*.py"))  # no package of this name
    file = tmp_path / "model" / "model.safetensors"
    with file.open("r+b") as weights:
        (length,) = struct.unpack("<Q", weights.read(8))
        entry = json.loads(weights.read(length))["model.embed_tokens.weight"]
        row_bytes = (entry["data_offsets"][1] - entry["data_offsets"][0]) // entry["shape"][0]
        weights.seek(8 + length + entry["data_offsets"][0] + 77 * row_bytes)
        weights.write(b"\xff" * row_bytes)  # NaN in any format
    sets = ("serving_config.server_port=0", f"model_config.model_cfg_path={tmp_path / 'model' / 'config.json'}")
    done = run_launcher(ROOT / "configs" / "demo.yaml", *sets, cwd=tmp_path, timeout=300)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "could not start" in line]
    assert f"{file}: tensor model.embed_tokens.weight: {entry['shape'][1]} of " in line
    assert "values are NaN or infinite (the first at [77, 0]); the file is damaged" in line
    assert "Traceback" not in done.stderr

"""The load client as a user runs it, against real servers on an emulated device. No time of the host is asserted.

Not covered: the picture where matplotlib is missing, and servers other than RingServe.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.demo import DEMO_DIR
from scripts.bench.serving.options import parse
from scripts.bench.serving.servers import OwnServer
from scripts.bench.serving.workload import make_workload
from tests.server.launched import Launched, write_config

SCRIPT = "scripts.bench.serving"
VLLM_KEYS = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate",
    "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
    "max_output_tokens_per_s", "max_concurrent_requests",
    *(f"{part}_{name}_ms" for part in ("mean", "median", "std", "p99") for name in ("ttft", "tpot", "itl", "e2el")),
}  # fmt: skip
DETAILS = {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "generated_texts", "errors"}


def run(*arguments):
    command = [sys.executable, "-m", SCRIPT, "--disable-tqdm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    launched = Launched(tmp_path_factory.mktemp("server"), ["pipeline.max_rows=4"])
    yield launched
    launched.stop()


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


@pytest.mark.parametrize("backend", ["llm-serving", "openai", "openai-chat"])
def test_every_figure_is_there_and_every_token_is_counted(server, tmp_path, backend):
    told_file, picture = tmp_path / "told.json", tmp_path / "run.png"
    plot = ["--plot", picture] if _has_matplotlib() else []
    done = run(
        "--base-url", server.base, "--backend", backend, "--tokenizer", DEMO_DIR, "--num-prompts", 12,
        "--random-input-len", 20, "--random-output-len", 9, "--random-range-ratio", 0.5, "--max-concurrency", 5,
        "--goodput", "ttft:60000", "e2el:60000", "--metric-percentiles", "90,99",
        "--metadata", "branch=x", "--label", "mine", "--save-detailed", "--json", told_file, *plot,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(told_file.read_text())
    assert told.keys() >= VLLM_KEYS | DETAILS | {"p90_itl_ms", "branch", "score", "client", "server", "machine"}
    assert (told["completed"], told["failed"], told["label"], told["branch"]) == (12, 0, "mine", "x")
    assert told["max_concurrent_requests"] <= 5 == told["max_concurrency"]
    template = 6 if backend == "openai-chat" else 0  # tokens that the chat template adds, at most
    assert all(10 <= length <= 30 + template for length in told["input_lens"])
    assert all(4 <= length <= 14 for length in told["output_lens"])
    assert told["total_output_tokens"] == sum(told["output_lens"])
    assert [len(gaps) + 1 for gaps in told["itls"]] == told["output_lens"]
    assert told["request_goodput"] == pytest.approx(told["request_throughput"])
    assert told["duration"] >= told["score"] > 0
    assert told["mean_ttft_ms"] == pytest.approx(1000 * np.mean(told["ttfts"]))
    assert told["p90_e2el_ms"] == pytest.approx(1000 * np.percentile(told["latencies"], 90))
    assert told["server"]["steps"] > 0
    assert told["client"]["cpu_us_per_token"] > 0
    assert "Serving Benchmark Result" in done.stdout
    assert "Successful requests:                      12" in done.stdout
    assert not plot or picture.read_bytes().startswith(b"\x89PNG")


def _has_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def test_answers_are_those_of_the_device_and_prompts_are_reproducible(server, tmp_path):
    told_file = tmp_path / "told.json"
    words = ["--base-url", server.base, "--tokenizer", str(DEMO_DIR), "--dataset-name", "task1", "--num-prompts", "9"]
    done = run(*words, "--seed", 5, "--request-rate", 200, "--save-detailed", "--json", told_file)
    assert done.returncode == 0, done.stderr
    told = json.loads(told_file.read_text())
    requests = make_workload(parse(None, [*words, "--seed", "5"]), lambda: server.tokenizer.encode)
    assert told["input_lens"] == [request.prompt_tokens for request in requests]
    texts = [server.text(request.prompt, request.output_tokens) for request in requests]
    assert told["generated_texts"] == texts
    assert told["start_times"] == sorted(told["start_times"])
    assert told["start_times"][-1] > 0.9 * 9 / 200  # arrivals end when they should, and no request is early
    assert told["request_rate"] == 200


def test_the_servers_own_tokenizer_gives_the_same_prompts(server, tmp_path):
    for name, options in (("own", []), ("files", ["--tokenizer", DEMO_DIR])):
        done = run(
            "--base-url", server.base, "--backend", "openai", "--num-prompts", 3, "--random-input-len", 15,
            "--random-output-len", 4, "--save-detailed", "--json", tmp_path / name, *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    own, files = (json.loads((tmp_path / name).read_text()) for name in ("own", "files"))
    assert own["input_lens"] == files["input_lens"] == [15] * 3
    assert own["generated_texts"] == files["generated_texts"]


def test_prompts_from_a_file_and_failures_that_are_told(server, tmp_path):
    prompts, told_file = tmp_path / "prompts.jsonl", tmp_path / "told.json"
    entries = [{"prompt": "What is a ring?", "output_tokens": 6}, {"prompt": [300, 301], "output_tokens": 3}]
    prompts.write_text("\n".join(map(json.dumps, [*entries, {"prompt": "x", "output_tokens": 5000}])))
    done = run(
        "--base-url", server.base, "--backend", "openai", "--dataset-name", "custom", "--dataset-path", prompts,
        "--save-detailed", "--json", told_file,
    )  # fmt: skip
    assert done.returncode == 1
    assert "failed: HTTP 400: This model's maximum context length is" in done.stderr
    told = json.loads(told_file.read_text())
    assert (told["completed"], told["failed"]) == (2, 1)
    assert told["generated_texts"][0] == server.text("What is a ring?", 6)
    assert told["generated_texts"][1] == server.text([300, 301], 3)
    assert told["output_lens"] == [6, 3, 0]
    assert told["errors"][0] == ""


def test_a_scaled_device_is_started_said_to_be_emulated_and_told_in_its_own_time(config, tmp_path):
    told_file = tmp_path / "told.json"
    done = run(
        "--config", config, "--set", "pipeline.runner.cost_model.fixed_ms=8", "--time-scale", 4, "--num-prompts", 4,
        "--random-input-len", 8, "--random-output-len", 10, "--max-concurrency", 1, "--json", told_file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Device: emulated: test device, 4 times as fast as it is" in done.stdout
    assert "real ones times 4. The host's work counts 4-fold" in done.stdout
    told = json.loads(told_file.read_text())
    assert (told["device"], told["time_scale"]) == ("emulated: test device, 4 times as fast as it is", 4.0)
    assert told["mean_e2el_ms"] >= 10 * 8  # the device is never early
    assert told["duration"] >= 4 * 10 * 8 / 1000
    assert told["machine"]["others_cpu_percent"] >= 0
    server = told["server"]
    assert set(server["pss_mib_by_process"]) >= {"rs-front", "rs-preprocess", "rs-inference", "rs-sampling"}
    assert server["pss_mib"] == pytest.approx(sum(server["pss_mib_by_process"].values()))
    assert 0 < server["pss_mib"] <= server["rss_mib"]


def test_the_cost_of_a_step_is_scaled_in_all_its_parts(config):
    costs = ["fixed_ms=8", "per_token_ms=0.4", "per_row_ms=0.2", "per_cached_token_ms=0.01", "jitter_ms=1"]
    server = OwnServer.prepare(config, [f"pipeline.runner.cost_model.{cost}" for cost in costs], 4.0)
    cost = server.config.pipeline.runner.cost_model
    assert [cost[part.split("=")[0]] for part in costs] == pytest.approx([2, 0.1, 0.05, 0.0025, 0.25])


def test_task_2_saves_logits_and_compares_them(config, tmp_path):
    words = [
        "--config",
        config,
        "--dataset-name",
        "task2",
        "--num-prompts",
        24,
        "--set",
        "pipeline.log.level=warning",
    ]
    base, new = tmp_path / "base", tmp_path / "new"
    done = run(*words, "--save-logits", base)
    assert done.returncode == 0, done.stderr
    files = sorted(base.iterdir())
    assert files
    logits = np.load(files[0])
    logits[0, 1234] += 1
    np.save(files[0], logits)
    done = run(*words, "--save-logits", new, "--base-logits", base, "--set", "pipeline.max_rows=2")
    assert done.returncode == 1  # that one element, and nothing else
    assert f"compared {len(files)} pairs" in done.stdout
    assert "token 1234" in done.stdout
    assert "\n1 failures" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "one of the arguments --config --base-url is required"),
        (("--base-url", "http://x", "--config", "y"), "not allowed with"),
        (("--base-url", "http://x", "--time-scale", "2"), "for a server started by --config"),
        (("--base-url", "http://x", "--request-rate", "0"), "0 is not above 0"),
        (("--base-url", "http://x", "--burstiness", "nan"), "nan is not above 0"),
        (("--base-url", "http://x", "--goodput", "itl:5"), "expected one of ttft, tpot, e2el"),
        (("--base-url", "http://x", "--goodput", "ttft"), "a colon and milliseconds"),
        (("--base-url", "http://x", "--percentile-metrics", "ttft,foo"), "unknown metric 'foo'"),
        (("--base-url", "http://x", "--metric-percentiles", "101"), "percentiles lie in"),
        (("--base-url", "http://x", "--dataset-name", "custom"), "--dataset-path FILE belongs to"),
        (("--base-url", "http://x", "--prompt-ids"), "takes text only"),
        (("--base-url", "http://x", "--extra-body", "[]"), "expected a JSON object"),
        (("--base-url", "http://x", "--base-logits", "y"), "needs --save-logits"),
        (("--base-url", "http://x", "--header", "x"), "expected NAME=VALUE"),
        (("--base-url", "http://x", "--random-range-ratio", "1"), "not in [0, 1)"),
    ],
)
def test_wrong_options_are_told(capsys, arguments, word):
    with pytest.raises(SystemExit) as end:
        parse(None, list(arguments))
    assert end.value.code == 2
    assert word in capsys.readouterr().err


def test_infinite_rates_and_an_api_key_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    options = parse(None, ["--base-url", "http://x", "--burstiness", "inf", "--header", "x-a=1"])
    assert options.headers == (("x-a", "1"), ("authorization", "Bearer secret"))
    assert math.isinf(options.request_rate)
    assert math.isinf(options.burstiness)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--base-url", "http://127.0.0.1:1", "--backend", "openai"), "give it with --model"),
        (("--base-url", "http://127.0.0.1:1", "--model", "x"), "has no /tokenize"),
        (("--base-url", "127.0.0.1", "--model", "x", "--tokenizer", DEMO_DIR), "no base URL"),
        (("--base-url", "http://127.0.0.1:1", "--model", "x", "--tokenizer", "/nowhere"), "there is no tokenizer"),
        (("--config", "/nowhere.yaml"), "/nowhere.yaml"),
    ],
)
def test_what_cannot_be_run_is_told(arguments, word):
    done = run(*arguments, "--num-prompts", 2, "--random-input-len", 5)
    assert done.returncode == 1
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_real_device_has_no_time_scale_and_a_server_that_cannot_start_is_told(config):
    done = run("--config", Path(__file__).parents[4] / "configs" / "demo.yaml", "--time-scale", 2)
    assert done.returncode == 1
    assert "only an emulated device can be made faster" in done.stderr
    done = run("--config", config, "--set", "pipeline.hosts=192.0.2.1", "--num-prompts", 1)
    assert done.returncode == 1
    assert "can't listen on" in done.stderr

"""Keys, addresses and ports of a whole server, as its operator sets them."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from pipeline.launcher.api_keys import MAX_KEYS
from tests.server.launched import run_launcher, wait_until, write_config

KEY, FILED = "sk-environment-0123456789", "sk-filed-0123456789"


def test_keys_and_metrics_of_a_real_server(own, tmp_path, monkeypatch):
    monkeypatch.setenv("RINGSERVE_API_KEYS", f"{KEY},another")
    (tmp_path / "keys").write_text(f"{FILED}  # whose\n")
    (tmp_path / "keys").chmod(0o644)
    server = own(f"pipeline.api_keys_file={tmp_path / 'keys'}", "pipeline.metrics_port=0")
    said = "".join(server.said)
    assert "is readable by all users (mode 0644)" in said
    assert "warning: other machines" not in said
    assert "authorization: Bearer …" in said
    (metrics,) = (line.split()[-1] for line in server.said if "metrics at" in line)
    assert httpx.get(metrics).status_code == 200
    assert httpx.get(f"{server.base}/metrics").status_code == 404
    assert server.generate("x", 2).status_code == 401
    body = {"inputs": "What is a ring?", "parameters": {"max_new_tokens": 5}}
    for key in (KEY, FILED, "another"):
        answer = server.client.post("/models/llama2/generate", json=body, headers={"authorization": f"Bearer {key}"})
        assert answer.json()["generated_text"] == server.text("What is a ring?", 5)
    for stage, pid in server.stages().items():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"RINGSERVE_API_KEY" not in environment, stage
        assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes(), stage
    server.end()
    assert not any(key in "".join(server.said) for key in (KEY, FILED, "another"))


def test_rules_of_keys_are_read_again_and_what_they_have_used_is_kept(own, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{FILED} tokens_per_minute=200\n")
    keys.chmod(0o600)
    server = own(f"pipeline.api_keys_file={keys}", "pipeline.runner.cost_model.fixed_ms=5")

    def ask(key, count, **headers):
        body = {"inputs": "two words", "parameters": {"max_new_tokens": count}}
        headers = {"authorization": f"Bearer {key}", **headers}
        return server.client.post("/models/llama2/generate", json=body, headers=headers)

    assert [ask(FILED, 90).status_code for _ in range(2)] == [200, 200]
    rules = "weight=2.5 priority=-1 concurrent=100000 requests_per_minute=100000 tokens_per_minute=100000"
    others = "\n".join(f"sk-{number:06d} {rules}" for number in range(MAX_KEYS - 2))  # as many as there may be
    keys.write_text(f"{FILED} tokens_per_minute=150\n{KEY} operator\n{others}\n")
    server.process.send_signal(signal.SIGHUP)
    server.log("configuration reloaded")
    wait_until(lambda: ask("sk-000007", 1).status_code == 200, "the new keys are not valid")
    refused = ask(FILED, 99)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-tokens"] == "150"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 99

    late = ask(KEY, 100, **{"x-request-timeout-ms": "100"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: server.metric("ringserve_num_requests_running") == 0, "it runs though it was cancelled")
    assert server.metric("ringserve_deadlines_total", outcome="missed") == 1


def test_another_address_than_loopback_and_a_metrics_port_in_use(own, monkeypatch):
    server = own("pipeline.hosts=[0.0.0.0]", "pipeline.metrics_port=0")
    said = "".join(server.said)
    assert "warning: other machines may reach this server, and no API key is needed" in said
    port = said.partition("metrics at http://127.0.0.1:")[2].partition("/")[0]
    done = run_launcher(server.path, f"pipeline.metrics_port={port}")
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
    assert "--set pipeline.metrics_port=" in done.stderr
    server.end()
    monkeypatch.setenv("RINGSERVE_API_KEY", KEY)
    assert "warning" not in "".join(own("pipeline.hosts=[0.0.0.0]").said)


@pytest.fixture
def path(tmp_path):
    """A configuration that could be served."""
    return write_config(tmp_path)


def test_keys_that_cannot_be_used_are_told_before_anything_starts(path, tmp_path, monkeypatch):
    monkeypatch.setenv("RINGSERVE_API_KEY", "")
    done = run_launcher(path)
    assert done.returncode == 2
    assert "RINGSERVE_API_KEY holds no API key" in done.stderr
    monkeypatch.delenv("RINGSERVE_API_KEY")
    (tmp_path / "keys").write_text(f"{FILED} twice\n")
    done = run_launcher(path, f"pipeline.api_keys_file={tmp_path / 'keys'}")
    assert done.returncode == 2
    assert "keys:1: behind an API key may stand" in done.stderr
    assert FILED not in done.stderr


def test_the_effective_configuration_shows_no_keys(path, tmp_path, monkeypatch):
    monkeypatch.setenv("RINGSERVE_API_KEY", KEY)
    (tmp_path / "keys").write_text(FILED)
    done = run_launcher(path, f"pipeline.api_keys_file={tmp_path / 'keys'}", options=["--check"])
    assert (done.returncode, f"api_keys_file: {tmp_path / 'keys'}" in done.stdout) == (0, True)
    assert KEY not in done.stdout + done.stderr
    assert FILED not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pipeline.metrics_port=8835", "pipeline.metrics_port is 8835, the same as serving_config.server_port"),
        ("pipeline.cors_origins=[example.org]", "expected an origin such as"),
        ("pipeline.cors_origins=[https://example.org/path]", "expected an origin such as"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, override, expected):
    path = tmp_path / "server.yaml"
    path.write_text(
        "model_config: {vocab_size: 100, max_generate_length: 64}\npipeline: {runner: {kind: emulated}}\n"
    )
    done = run_launcher(path, override, options=["--check"])
    assert done.returncode == 2
    assert expected in done.stderr

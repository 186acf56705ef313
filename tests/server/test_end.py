"""How a server ends, drains and reloads."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading

import httpx
import pytest

from tests.server.launched import pid_is_gone, wait_until

# ---- the end -------------------------------------------------------------------------------------------------------


def test_a_launcher_that_is_killed_takes_all_with_it(own):
    """Also in the middle of replacing a stage."""
    server = own()
    server.signal(signal.SIGKILL, "inference")
    pids = server.stages()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: all(map(pid_is_gone, pids.values())), "stages outlive their launcher")
    assert not server.segments()


def slow(own, *overrides):
    return own("pipeline.runner.cost_model.fixed_ms=20", *overrides)


class Answers:
    """So many requests of so many tokens, in the background."""

    def __init__(self, server, count, tokens):
        self.results = {}
        self.server, self.tokens = server, tokens
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: server.metric("ringserve_num_requests_running") == count, "they do not run", 60)

    def _ask(self, number):
        try:
            self.results[number] = self.server.generate(f"long {number}", self.tokens)
        except OSError as error:
            self.results[number] = error

    def join(self):
        for thread in self._threads:
            thread.join(60)
        return self.results

    def assert_right(self, number):
        assert self.results[number].json()["generated_text"] == self.server.text(f"long {number}", self.tokens)


def test_while_it_drains_it_answers_that_it_does(own):
    server = slow(own)
    answers = Answers(server, 4, 100)
    server.process.terminate()
    server.log("launcher", "draining")
    wait_until(lambda: server.status("/ready")[0] == 503, "it is still ready")
    refused = server.generate("too late", 3)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "shutting down" in refused.json()["error"]["message"]
    assert server.status("/health")[0] == 200
    assert server.wait() == 0
    for number in answers.join():
        answers.assert_right(number)
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.base + "/health")


def test_what_is_not_done_when_the_time_is_over_is_told_so(own):
    server = slow(own, "pipeline.drain_timeout_s=0.5")
    answers = Answers(server, 2, 400)
    server.process.terminate()
    assert server.wait() == 0
    for answer in answers.join().values():
        assert answer.status_code == 503
        assert "shutting down" in answer.json()["error"]["message"]


def test_a_second_signal_ends_it_at_once(own):
    server = slow(own, "pipeline.drain_timeout_s=50")
    answers = Answers(server, 2, 400)
    server.process.terminate()
    server.log("front", "draining")
    server.process.terminate()
    assert server.wait() == 0
    assert len(answers.join()) == 2
    for answer in answers.results.values():
        assert answer.status_code == 503


@pytest.mark.parametrize("stage", ["preprocess", "inference", "sampling"])
def test_a_stage_that_dies_while_it_drains(own, stage):
    server = slow(own)
    answers = Answers(server, 3, 60)
    server.process.terminate()
    server.log("launcher", "draining")
    server.signal(signal.SIGKILL, stage)
    assert server.wait() == 0
    for number, answer in answers.join().items():
        if answer.status_code == 200:
            answers.assert_right(number)
        else:
            assert answer.status_code == 503


def test_the_front_that_dies_while_it_drains(own):
    server = slow(own)
    answers = Answers(server, 2, 400)
    server.process.terminate()
    server.log("launcher", "draining")
    server.signal(signal.SIGKILL, "front")
    assert server.wait() == 1
    assert "was killed by SIGKILL while it drained" in server.text_said
    assert len(answers.join()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["a terminal", "systemd"])
def test_it_drains_though_every_process_gets_the_signal(own, number):
    server = slow(own)
    answers = Answers(server, 2, 60)
    os.killpg(server.process.pid, number)
    assert server.wait() == 0
    for asked in answers.join():
        answers.assert_right(asked)


# ---- reload --------------------------------------------------------------------------------------------------------


def test_sighup_changes_what_can_be_changed_and_names_the_rest(own):
    server = own()
    pids = server.stages()
    text = server.path.read_text()
    prompt = "long " * 1000
    assert server.generate(prompt, 1).status_code == 422  # too many tokens, but not too many bytes
    changed = text.replace("token_budget: 64", "token_budget: 32\n  body_limit_bytes: 2000\n  log: {level: warning}")
    server.path.write_text(changed)
    os.killpg(server.process.pid, signal.SIGHUP)
    line = server.log("configuration reloaded")
    assert "pipeline.body_limit_bytes = 2000" in line
    assert "pipeline.log.level = warning" in line
    assert line.strip().endswith("needs a restart: pipeline.token_budget")
    wait_until(lambda: server.generate(prompt, 1).status_code == 413, "the limit does not take effect")
    said = len(server.lines("front", "INFO"))
    server.serves()
    assert len(server.lines("front", "INFO")) == said
    assert server.stages() == pids
    server.kill("front")  # its successor has the new limit, too
    assert server.generate(prompt, 1).status_code == 413


def test_a_limit_of_another_stage(own):
    server = own("pipeline.runner.cost_model.fixed_ms=20")
    text = server.path.read_text()
    server.path.write_text(text.replace("token_budget: 64", "token_budget: 64\n  max_queue: 1"))
    server.process.send_signal(signal.SIGHUP)
    server.log("pipeline.max_queue = 1")
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        statuses = [
            answer.status_code for answer in pool.map(lambda i: server.generate(f"client {i}", 20), range(30))
        ]
    assert set(statuses) == {200, 429}


def test_a_file_with_mistakes_changes_nothing(own):
    server = own()
    server.path.write_text(server.path.read_text() + "  body_limit_bytes: 1\n  nonsense: 1\n")
    server.process.send_signal(signal.SIGHUP)
    server.log("the configuration was not reloaded")
    wait_until(lambda: "nonsense" in server.text_said, "the mistake is not told")
    server.serves()


def test_what_can_change_must_still_fit_to_what_can_not(own):
    """The ring of requests keeps its size until the server is started anew."""
    server = own()
    text = server.path.read_text()
    larger = "token_budget: 64\n  body_limit_bytes: 8388608\n  rings: {request_bytes: 16777216}"
    server.path.write_text(text.replace("token_budget: 64", larger))
    server.process.send_signal(signal.SIGHUP)
    server.log("the configuration was not reloaded")
    wait_until(lambda: "request_bytes" in server.text_said, "the mistake is not told")
    server.serves()

"""A server of its own for a test: an emulated device whose every token is known beforehand."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx

from model.demo import DEMO_DIR
from model.emulated import expected_tokens
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from pipeline.runtime.tokenizer import open_tokenizer
from scripts.lab.processes import children, kill, lives, spawn
from scripts.lab.server import START_S, ReadyPipe, launch_command, stages_of

CONFIG = """
model_config:
  model_name: emulated
  vocab_size: 2048
  end_token: 2
  seq_length: 400
  max_generate_length: 512
  decode_batch_size: 8
pa_config: {num_blocks: 256, block_size: 16}
serving_config: {server_port: 0}
tokenizer: {type: LlamaTokenizer, vocab_file: TOKENIZER}
pipeline:
  token_budget: 64
  drain_timeout_s: 10
  runner:
    kind: emulated
    name: test device
    cost_model: {fixed_ms: 1.0}
    token_range: [300, 2048]
"""


def write_config(directory, text=CONFIG, tokenizer=Path(DEMO_DIR) / "tokenizer.json"):
    path = directory / "server.yaml"
    path.write_text(text.replace("TOKENIZER", str(tokenizer)))
    return path


def run_launcher(path, *overrides, options=(), cwd=None, timeout=60):
    """Of a server that does not start: what it said, and its exit status."""
    command = [*launch_command(path, overrides), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=timeout)


class Attempt:
    """A start that may fail, perhaps under a command that takes something away from it. Its log is a file."""

    def __init__(self, directory, *overrides, command=(), log=None):
        self.path = write_config(directory)
        self.log_file = log or directory / f"server-{len(list(directory.glob('server-*.log')))}.log"
        self._ready, self.base = ReadyPipe(), None
        launch = [*command, *launch_command(self.path, overrides), *self._ready.options]
        self.process = spawn(launch, self.log_file, pass_fds=self._ready.fds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def outcome(self):
        """ "ready", or the exit status. Neither in time is a hang."""
        self.base = self._ready.wait(self.process, time.monotonic() + START_S)
        if self.base:
            return "ready"
        assert self.process.poll() is not None, f"it hangs: {self.text_said}"
        return self.process.returncode

    @property
    def text_said(self):
        return self.log_file.read_text()

    @property
    def said(self):
        """Its lines."""
        return self.text_said.splitlines(keepends=True)

    @property
    def launcher(self):
        """Its pid. `unshare` and `prlimit` become what they start, or with `--fork` its parent."""
        name = Path(f"/proc/{self.process.pid}/comm").read_text().strip()
        return children(self.process.pid)[0] if name == "unshare" else self.process.pid

    def stages(self):
        """Pids of the stages, by name."""
        return stages_of(self.launcher)

    def generate(self, prompt, count, model="llama2", **parameters):
        """Over a connection of its own: threads that share a pool of them can close each other's."""
        body = json.dumps({"inputs": prompt, "parameters": {"max_new_tokens": count, **parameters}})
        connection = http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", f"/models/{model}/generate", body, {"content-type": "application/json"})
            response = connection.getresponse()
            return httpx.Response(response.status, headers=response.getheaders(), content=response.read())

    def tokens(self, prompt, count):
        """How many there were."""
        return self.generate(prompt, count).json()["generated_tokens"]

    def kill(self, stage):
        """And wait until the server is back."""
        before = self.text_said.count("serving again")
        os.kill(self.stages()[stage], signal.SIGKILL)
        wait_until(lambda: self.text_said.count("serving again") > before, lambda: self.text_said, 60)

    def reload(self, line):
        """With this line in the section `pipeline`."""
        write_config(self.path.parent, CONFIG.replace("pipeline:\n", f"pipeline:\n  {line}\n"))
        self.process.send_signal(signal.SIGHUP)

    def end(self, number=signal.SIGTERM, timeout=20):
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def stop(self):
        kill(self.process)
        self._ready.__exit__()


class Launched(Attempt):
    """One that serves."""

    def __init__(self, directory, overrides=(), log=None):
        super().__init__(directory, *overrides, log=log)
        self.config = load_configuration(self.path, overrides)
        self.runner = make_runner(self.config)
        self.tokenizer = open_tokenizer(self.config, self.runner.facts.vocab_size)
        assert self.outcome() == "ready", self.text_said
        self.client = httpx.Client(base_url=self.base, timeout=60)

    def expected(self, prompt, count, adapter=0):
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return expected_tokens(ids, count, self.runner.settings, adapter)

    def text(self, prompt, count, adapter=0):
        return self.tokenizer.decode(self.expected(prompt, count, adapter))

    def metric(self, name, **labels):
        """The sum over all with these values of labels."""
        lines = self.client.get("/metrics").text.splitlines()
        lines = [line for line in lines if line.startswith((name + " ", name + "{"))]
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [line for line in lines if all(re.search(rf"[{{,]{word}[,}}]", line) for word in wanted)]
        assert found, (name, labels)
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def segments(self):
        return [path.name for path in Path("/dev/shm").iterdir() if f"-{self.process.pid}-" in path.name]

    def stop(self):
        self.client.close()
        super().stop()


def pid_is_gone(pid):
    return not lives(pid)


def wait_until(condition, what, seconds=10):
    """`what` may be a function: what to say then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.02)

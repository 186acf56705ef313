"""A real server whose stages come and go."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time

import httpx

from tests.server.launched import Launched, pid_is_gone, wait_until

LONG_S = 60  # nothing is asserted to be fast: this only ends a hang


class Supervised(Launched):
    def lines(self, *words):
        return [line for line in self.said if all(word in line for word in words)]

    def log(self, *words, count=1):
        """The newest line with all these words, as soon as there are so many."""
        wait_until(lambda: len(self.lines(*words)) >= count, lambda: f"no {words} in:\n{self.text_said}", LONG_S)
        return self.lines(*words)[-1]

    def status(self, path):
        """Status and body, also while the front is being replaced."""
        try:
            answer = httpx.get(self.base + path, timeout=LONG_S)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def wait_ready(self):
        wait_until(lambda: self.status("/ready")[0] == 200, lambda: f"never ready:\n{self.text_said}", LONG_S)

    @property
    def recoveries(self):
        return len(self.lines("serving again after"))

    def signal(self, number, *stages):
        """Returns their pids, and waits until it has reached them."""
        pids = self.stages()
        for stage in stages:
            os.kill(pids[stage], number)
        if number == signal.SIGKILL:
            for stage in stages:
                wait_until(lambda stage=stage: pid_is_gone(pids[stage]), f"{stage} survives SIGKILL", LONG_S)
        return pids

    def kill(self, *stages):
        """And wait until the server is back; the pids before."""
        before = self.recoveries
        pids = self.signal(signal.SIGKILL, *stages)
        self.recover(before)
        return pids

    def recover(self, before):
        wait_until(lambda: self.recoveries > before, lambda: f"it never came back:\n{self.text_said}", LONG_S)
        self.wait_ready()

    def serves(self, prompt="Are you there?", count=8):
        answer = self.generate(prompt, count)
        assert answer.status_code == 200, answer.text
        assert answer.json()["generated_text"] == self.text(prompt, count)

    def counters(self):
        """Every Prometheus counter, by name and labels."""
        lines = httpx.get(self.base + "/metrics", timeout=LONG_S).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if "_total" in line.split("{")[0] and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def wait(self):
        """Exit status."""
        return self.process.wait(LONG_S)


class Load:
    """Requests that run all the time, until `stop`, from so many clients; what became of each."""

    def __init__(self, server, clients=6, tokens=40):
        self.statuses, self._server, self._tokens = [], server, tokens
        self._go = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(clients)
        self._clients = [self._pool.submit(self._run, i) for i in range(clients)]

    def _run(self, number):
        while not self._go.is_set() and self._server.process.poll() is None:
            prompt = f"client {number}"
            try:
                answer = self._server.generate(prompt, self._tokens)
            except OSError:  # the front was lost, and the connection with it
                self.statuses.append(0)
                time.sleep(0.02)
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code == 200:
                assert answer.json()["generated_text"] == self._server.text(prompt, self._tokens)
            else:
                assert answer.status_code in (429, 503), answer.text
                assert answer.json()["error"]["message"]
                time.sleep(0.02)

    def stop(self):
        self._go.set()
        for client in self._clients:
            client.result(LONG_S)
        self._pool.shutdown()

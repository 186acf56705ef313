"""The other end of the front's rings in these tests: does with each request what its prompt says.

Arguments: handles as JSON, the tokenizer that encodes texts, and the descriptor of the statistics. A prompt is words,
which are echoed as tokens, round and round, and directives that begin with @. A request that is resumed goes on
behind its output. What arrives is printed, one JSON line per message; with @report each token, too. Lines on standard
input: ``ready``/``unready`` (the stages' state), ``numbers`` (set the counters), ``steps N`` (write N records to the
log of steps), ``close`` (leave the rings).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

import ipc
from model.tokenizer import Tokenizer, load_tokenizer
from pipeline.preprocess.encodings import Encodings, Tokenized
from pipeline.preprocess.intake import AT_ONCE
from pipeline.stats import Counters, InferenceCounter, PreprocessCounter, StatsHandle, StatsPage, StepLog
from pipeline.wire.delta import Delta, FinishReason, PromptScores
from pipeline.wire.request import (
    Accepted,
    Cancel,
    Choice,
    Encode,
    GoOn,
    Refused,
    Request,
    Started,
    Submit,
    count_ids,
    ids_of,
    unpack_message,
    unpack_request,
)
from pipeline.wire.step import HEADER_WORDS, STAMP_WORDS, Head


@dataclass
class Running:
    message: Submit
    params: Request
    request: int
    attempt: int
    words: list[str]
    options: dict[str, str]
    index: int = 0
    due: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        return min(int(self.options.get("after", 1 << 30)), self.params.max_tokens)


def parse(message: Submit, choice: Choice) -> Running:
    words = [f"<{i}>" for i in ids_of(message.token_ids)] if message.text is None else message.text.split(" ")
    options = dict((word[1:] + "=").split("=")[:2] for word in words if word.startswith("@"))
    words = [word for word in words if not word.startswith("@")]
    params, index = unpack_request(message.params), count_ids(choice.output)
    return Running(message, params, choice.request, choice.attempt, words, options, index=index)


@dataclass
class Reader:
    tokenizer: Tokenizer

    def encode(self, asked: Encode) -> Tokenized:
        options = {"add_special": asked.add_special, "plain": asked.plain}
        return Tokenized(*self.tokenizer.encode_up_to(asked.text, asked.most, **options))


class Peer:
    def __init__(self, handles: dict[str, str], folder: str, stats_fd: int) -> None:
        self.folder = folder
        self.encodings = Encodings(lambda _: None, lambda: None)
        rings = {name: ipc.ByteRing.from_handle(ipc.RingHandle.from_text(text)) for name, text in handles.items()}
        self.requests = rings["requests"].consumer(label="preprocess")
        self.replies = rings["replies"].producer(label="preprocess")
        self.deltas = rings["deltas"].producer(label="sampling")
        self.page = StatsPage.from_handle(StatsHandle(stats_fd))
        self.steps = StepLog(self.page)
        self.preprocess = Counters(self.page, "preprocess")
        self.running: dict[int, Running] = {}
        self.open = True

    def run(self) -> None:
        say({"attached": os.getpid()})
        while self.open:
            busy = self.take() | self.advance()
            self.reply(self.encodings.take())
            if select.select([sys.stdin], [], [], 0 if busy else 0.002)[0]:
                self.obey(sys.stdin.readline().strip())

    def take(self) -> bool:
        if (record := self.requests.try_read()) is None:
            return False
        with record:
            message = unpack_message(bytes(record))
        if isinstance(message, Encode | GoOn):
            self.encode(message)
        elif isinstance(message, Cancel):
            self.encodings.cancel(message.request)
            self.running.pop(message.request, None)
            say({"cancel": message.request})
        else:
            for choice in message.choices:
                self.submit(message, choice)
        return True

    def encode(self, message: Encode | GoOn) -> None:
        """As preprocess does it."""
        if isinstance(message, GoOn):
            self.reply(self.encodings.go_on(message.request))
            return
        say({"encode": message.request, "attempt": message.attempt})
        if message.size <= AT_ONCE:
            self.reply(self.encodings.at_once(message, Reader(self.tokenizer)))
        else:
            self.encodings.add(message, Reader(self.tokenizer))

    def reply(self, reply: bytes | None) -> None:
        if reply is not None:
            self.replies.write(reply)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    def submit(self, message: Submit, choice: Choice) -> None:
        running, request = parse(message, choice), choice.request
        prompt = ids_of(message.token_ids).tolist() if message.text is None else message.text
        params, sampling = running.params, running.params.sampling
        say({"submit": request, "prompt": prompt, "max_tokens": params.max_tokens,
             "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
             "seed": choice.seed, "stop": params.stop, "logprobs": sampling.logprobs, "grammar": sampling.grammar,
             "ignore_eos": params.ignore_eos, "add_special": message.add_special,
             "min_tokens": sampling.min_tokens, "open_ended": params.open_ended,
             "include_stop": params.include_stop, "skip_special": params.skip_special,
             "stop_token_ids": sampling.stop_token_ids, "logit_bias": sampling.logit_bias,
             "resumed": message.resumed, "output": ids_of(choice.output).tolist(), "attempt": choice.attempt,
             "adapter": params.adapter, "most_drafts": params.most_drafts, "deterministic": params.deterministic,
             "arrival_ns": message.arrival_ns, "scored": choice.scored,
             "prompt_logprobs": params.prompt_logprobs, "owner": message.owner,
             "deadline_ns": message.deadline_ns})  # fmt: skip
        if "refuse" in running.options or (message.resumed and "poison" in running.options):
            running.options.setdefault("refuse", "500")
            status, parameter = (running.options["refuse"] + ":").split(":")[:2]
            text = "the prompt has no tokens" if "empty" in running.options else "refused as asked"
            code = running.options.get("code")
            self.replies.write(Refused(request, choice.attempt, int(status), text, parameter or None, code).pack())
            return
        if "mute" in running.options:
            return
        first = -1 if params.prompt_logprobs is None else 9
        self.replies.write(Accepted(request, choice.attempt, 5, first).pack())
        self.replies.write(Started(request, choice.attempt, 2_000_000, 2).pack())
        if params.prompt_logprobs is not None:
            self.score(running, choice.scored)
        running.due = time.monotonic() + float(running.options.get("wait", 0))
        self.running[request] = running

    def score(self, running: Running, scored: int) -> None:
        """Tokens 10 to 13 of the prompt, in two pieces. At every other place another token is more probable."""
        k, options = running.params.prompt_logprobs or 0, running.options
        for position in range(scored, 4, 2):
            at = np.arange(position, position + 2, dtype=np.int32)
            logprobs = (-0.5 * (at + 1)).astype(np.float32)
            best = np.where(at % 2, -0.125, logprobs)[:, None] - 0.25 * np.arange(k)
            best_ids = (at + np.where(at % 2, 20, 10))[:, None] + 40 * np.arange(k)
            if "nan" in options:
                logprobs[:] = np.nan
            arrays = 10 + at, logprobs, best_ids.astype(np.int32), best.astype(np.float32)
            first = position + int(options.get("shift", 0))
            self.deltas.write(PromptScores(running.request, running.attempt, first, *arrays).pack())
            if "half" in options and not running.message.resumed:
                os.kill(os.getpid(), signal.SIGKILL)

    def advance(self) -> bool:
        moved = False
        for request, running in list(self.running.items()):
            if "hang" in running.options or time.monotonic() < running.due:
                continue
            count = running.total if "burst" in running.options else 1
            if "work" in running.options:
                self.write_steps(1)
            self.deltas.write_many([self.delta(running) for _ in range(count)], 10)
            running.due = time.monotonic() + float(running.options.get("pace", 0))
            if running.index >= running.total:
                del self.running[request]
            if running.index == int(running.options.get("die", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            for fault, by in (("skip", 1), ("twice", -1)):
                running.index += by * (running.index == int(running.options.get(fault, -1)))
            moved = True
        return moved

    def delta(self, running: Running) -> bytes:
        i = running.index
        running.index += 1
        reason = FinishReason.NONE
        if running.index == running.total:
            reason = FinishReason[running.options.get("reason", "length").upper()]
        logprobs = running.params.sampling.logprobs
        word = running.words[i % len(running.words)]
        text = ("" if i == 0 else " ") + word if word != "_" else ""
        top = tuple((7 + n, -0.5 * (n + 1)) for n in range(logprobs or 0))
        failed = reason is FinishReason.FAILED
        token, logprob = -1 if failed else 100 + i % 50, float("nan") if logprobs is None else -0.25 * (i + 1)
        text = "the model's logits are not finite" if failed else text
        if "report" in running.options:
            shown = None if logprobs is None else logprob
            say({"delta": running.request, "token": [running.index, token, shown, int(reason), text, top]})
        return Delta(running.request, running.attempt, running.index, token, logprob, reason, text, top).pack()

    def obey(self, line: str) -> None:
        word, *numbers = line.split()
        if word in ("ready", "unready"):
            for stage in ("preprocess", "inference", "sampling"):
                Counters(self.page, stage).set(0, int(word == "ready"))
        elif word == "numbers":
            for counter in PreprocessCounter:
                if counter is not PreprocessCounter.READY:
                    self.preprocess.set(counter, 10 + counter)
            Counters(self.page, "inference").set(InferenceCounter.GREEDY_STEPS, 5)
        elif word == "steps":
            self.write_steps(int(numbers[0]))
        elif word in ("close", ""):
            self.open = False
        say({"done": line})

    def write_steps(self, count: int) -> None:
        now = time.monotonic_ns()
        for number in range(1, count + 1):
            head, stamps = np.zeros(HEADER_WORDS, np.int64), np.zeros(STAMP_WORDS, np.int64)
            head[[Head.STEP, Head.DEPENDS_ON_STEP, Head.TOKENS, Head.ROWS, Head.DECODE_ROWS]] = (
                number, number - 1, 4, 4, 4,
            )  # fmt: skip
            stamps[:] = np.array([1_000, 2_000, 5_000, 25_000, 28_000, 36_000, 50_000, 400]) + now + number * 40_000
            self.steps.record(head.tolist(), stamps)


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    peer = Peer(json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    peer.run()
    for end in (peer.requests, peer.replies, peer.deltas):
        end.close()

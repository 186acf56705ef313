"""The three stages of the step path in one process, driven turn by turn, on an emulated device.

Everything is real but the processes: rings, layouts, scheduler, runner, sampler, detokenizer.
"""

from __future__ import annotations

import dataclasses
import functools
from array import array

import numpy as np
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

import ipc
from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.grammar import Vocabulary
from model.layout import with_samples
from model.tokenizer import load_tokenizer
from pipeline.inference.step_executor import InferenceRings, StepExecutor
from pipeline.preprocess.adapters import adapters_of
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.drafts import DraftLimits
from pipeline.preprocess.intake import Intake
from pipeline.preprocess.prompts import PreprocessLimits, PromptPool, PromptReader
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Abilities
from pipeline.preprocess.stage import OVERLAPPED, PLAIN, PreprocessRings, PreprocessStage
from pipeline.runtime.deterministic import fixed_tokens
from pipeline.runtime.engines import emulated_buckets
from pipeline.sampling.chooser import Chooser
from pipeline.sampling.grammars import RowGrammars
from pipeline.sampling.rows import Rows
from pipeline.sampling.stage import SamplingRings, SamplingStage
from pipeline.sampling.verifier import Verifier
from pipeline.stats import StepLimits
from pipeline.wire.delta import SCORES, FinishReason, delta_head, unpack_delta, unpack_scores
from pipeline.wire.request import Cancel, Choice, Refused, Started, Submit, choose_seeds, unpack_reply
from pipeline.wire.step import Shapes, logits_layout, results_layout, step_layout, tokens_layout

VOCABULARY = 257
EOS = 256
ADAPTERS = ("first", "second")


def write_byte_tokenizer(directory, count=EOS):
    """Every byte is a token, or the first so many are, and the id behind them ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:count]
    library = Library(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["</s>"])
    library.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return directory / "tokenizer.json"


def limits_of(compilation):
    """As on the statistics page."""
    largest = compilation.ready[-1]
    drafted = max(bucket.samples for bucket in compilation.ready)
    return StepLimits(largest.tokens, largest.samples, drafted, not compilation.remaining)


class Server:
    """`ahead` is how many steps may be under way: OVERLAPPED or PLAIN. `ranks`: of which the first is driven here."""

    ranks = 1

    def __init__(
        self, tokenizer_file, *, rows=4, budget=16, blocks=64, block_size=4, max_length=128, ahead=OVERLAPPED,
        prefix_cache=True, greedy_on_device=True, emit_eos=False, max_queue=100, logit_rows=0, samples=0, drafts=0,
        **device,
    ):  # fmt: skip
        self.settings = EmulatedSettings(
            cost=CostModel(fixed_ms=0.0),
            vocab_size=VOCABULARY,
            max_length=max_length,
            num_blocks=blocks,
            block_size=block_size,
            buckets=with_samples(emulated_buckets(rows, budget, rows * (1 + drafts) if drafts else 0), samples),
            eos_token_id=EOS,
            emit_eos=emit_eos,
            eos_probability=0.05,
            greedy_on_device=greedy_on_device,
            spin_us=0,
            adapters=len(ADAPTERS),
            **device,
        )
        self.tokenizer = load_tokenizer(tokenizer_file)
        self.limits = PreprocessLimits(
            max_length,
            max_length - 1,
            max_queue,
            frozenset({EOS}),
            adapters=adapters_of({name: name.encode() for name in ADAPTERS}),
        )
        self.greedy_on_device, self.prefix_cache = greedy_on_device, prefix_cache
        self.rows, self.logit_rows, self.drafts = rows, logit_rows, drafts
        self.ahead = ahead
        self.quarantine = Quarantine()
        self.submitted = {}  # request → Submit
        self.told = {}  # request → deltas
        self.scores = {}  # request → token, log-probability and best ones of each token of the prompt but the first
        self.answers = {}  # request → Accepted or Refused
        self.started = {}  # request → Started
        self.pool = PromptPool()
        self.wire()

    def wire(self):
        """New rings, and stages at them that know nothing of those before."""
        self.pool.clear()
        runner = self.make_runner()
        runner.load()
        facts, compilation = runner.facts, self.begin_compilation(runner)
        abilities = Abilities.of(facts, argmax=self.greedy_on_device, save_logits=False)
        shapes = Shapes(
            max(b.tokens for b in facts.buckets), self.rows, facts.block_table_width, VOCABULARY,
            samples=max(b.samples for b in facts.buckets),
            logit_rows=max(self.logit_rows or self.rows, 1 + self.drafts), candidates=max(1, abilities.candidates),
            drafts=self.drafts,
        )  # fmt: skip
        make, records = ipc.SlotRing.create, ipc.ByteRing.create
        self.rings = rings = {
            "steps": make("steps", slots=4, layout=step_layout(shapes), consumers=self.ranks),
            "logits": make("logits", slots=2, layout=logits_layout(shapes)),
            "tokens": make("tokens", slots=4, layout=tokens_layout(shapes), consumers=self.ranks),
            "results": make("results", slots=4, layout=results_layout(shapes)),
            **{name: records(name, capacity=1 << 18) for name in ("requests", "replies", "rows", "deltas")},
        }
        self.requests = rings["requests"].producer()
        self.replies = rings["replies"].consumer()
        self.deltas = rings["deltas"].consumer()
        requests, results = rings["requests"].consumer(), rings["results"].consumer()
        self.scheduler = Scheduler(
            BlockManager(facts.num_blocks, facts.block_size, prefix_cache=self.prefix_cache),
            max_rows=self.rows,
            token_budget=shapes.token_budget,
            block_table_width=shapes.block_table_width,
            ring_slots=4,
            logit_rows=self.logit_rows,
            samples=shapes.samples,
            quarantine=self.quarantine,
            drafts=DraftLimits(shapes.drafts, self.rows, shapes.samples, self.rows, shapes.logit_rows),
            fixed_tokens=fixed_tokens(facts),
        )
        rows = rings["rows"].producer()
        intake = Intake(self.scheduler, self.pool, self.quarantine, lambda drop: rows.write(drop.pack()))
        limits = dataclasses.replace(self.limits, abilities=abilities)
        intake.reader = PromptReader(self.tokenizer, limits, self.scheduler.blocks)
        self.preprocess = PreprocessStage(
            PreprocessRings(
                requests,
                results,
                rings["replies"].producer(),
                rows,
                rings["steps"].producer(),
                ipc.RingSelector([(requests, rings["requests"].data_fd())]),
                rings["rows"].data_fd(),
            ),
            shapes,
            self.scheduler,
            intake,
            depth=self.ahead,
            step_limits=compilation and functools.partial(limits_of, compilation),
        )
        self.inference = StepExecutor(
            runner,
            InferenceRings(rings["steps"].consumer(), rings["tokens"].consumer(), rings["logits"].producer()),
            shapes,
            compilation=compilation,
        )
        ends = len(self.limits.end_ids)
        self.verifier = Verifier(shapes, self.limits.max_length)
        chooser = Chooser(shapes, self.limits.max_length, ends, None, self.verifier)
        vocabulary = functools.partial(Vocabulary, self.tokenizer, shapes.vocab_size, self.limits.end_ids)
        self.grammars = RowGrammars(chooser.pending, vocabulary, None)
        self.row_table = Rows(self.rows, self.tokenizer, chooser.pending, self.grammars, self.drafts)
        self.sampling = SamplingStage(
            SamplingRings(
                logits := rings["logits"].consumer(),
                rings["rows"].consumer(),
                rings["tokens"].producer(),
                rings["results"].producer(),
                rings["deltas"].producer(),
                ipc.RingSelector([(logits, rings["logits"].data_fd())], [rings["rows"].data_fd()]),
            ),
            shapes,
            self.row_table,
            chooser,
            self.verifier,
        )

    def make_runner(self):
        return EmulatedRunner(self.settings)

    def begin_compilation(self, runner):
        """Of its buckets, before it serves; None: all are compiled."""

    def submit(self, request, prompt, params):
        prompt = prompt if isinstance(prompt, str) else array("i", prompt)
        choice = Choice(request, *choose_seeds(params, 1))
        message = Submit.of((choice,), prompt, params, arrival_ns=request)
        self.submitted[request] = message
        self.requests.write(message.pack())

    def restart(self):
        """All stages anew, at new rings; what is not finished is submitted again, as the front does it."""
        self.unwire()
        self.wire()
        for request in self.unfinished():
            self.resume(request, self.tokens(request))

    def resume(self, request, output):
        """To go on behind this output."""
        message = self.submitted[request]
        last = message.choices[0]
        scored = len(self.scores.get(request, ()))
        choice = Choice(request, last.seed, last.attempt + 1, array("i", output).tobytes(), scored)
        self.submitted[request] = message.with_choices([choice])
        self.requests.write(self.submitted[request].pack())

    def crash(self):
        """Inference fails by itself, and all begins anew."""
        self.quarantine.accuse("inference", self.scheduler.aboard, self.scheduler.alone)
        self.restart()

    def unfinished(self):
        def over(request):
            ended = request in self.told and self.told[request][-1].reason is not FinishReason.NONE
            return ended or isinstance(self.answers.get(request), Refused)

        return [request for request in self.submitted if not over(request)]

    def cancel(self, request):
        self.submitted.pop(request, None)
        self.requests.write(Cancel(request).pack())

    def plan(self):
        return self.preprocess.may_plan and self.preprocess.plan_step()

    def compute(self):
        """A step, if one is planned whose tokens are known or can become so."""
        if self.inference.steps_done >= self.preprocess.steps_planned:
            return False
        if self.inference.steps_done > self.sampling.steps_done:
            return False  # it would wait for sampling, which only the next turn runs
        self.inference.run_step()
        return True

    def sample(self):
        if self.sampling.steps_done >= self.inference.steps_done:
            return False
        self.sampling.run_step()
        return True

    def listen(self):
        heard = False
        while (record := self.replies.try_read()) is not None:
            reply = unpack_reply(bytes(record))
            (self.started if isinstance(reply, Started) else self.answers)[reply.request] = reply
            heard = True
        while (record := self.deltas.try_read()) is not None:
            heard, told = True, bytes(record)
            if delta_head(told)[4] == SCORES:
                self.note_scores(told)
            else:
                delta = unpack_delta(told)
                self.told.setdefault(delta.request, []).append(delta)
        return heard

    def note_scores(self, record):
        heard = unpack_scores(record)
        own = self.scores.setdefault(heard.request, [])
        assert heard.position == len(own), "scores are missing, or came twice"
        assert heard.request not in self.told, "a prompt's scores come before its first token"
        best = [
            list(zip(*pair, strict=True))
            for pair in zip(heard.top_ids.tolist(), heard.top_logprobs.tolist(), strict=True)
        ]
        own += zip(heard.ids.tolist(), heard.logprobs.tolist(), best, strict=True)

    @property
    def moves(self):
        """What stages do, each in its turn."""
        return (
            self.preprocess.take_results,
            self.preprocess.take_request,
            self.plan,
            self.compute,
            self.sample,
            self.listen,
        )

    def turn(self):
        return any([move() for move in self.moves])  # noqa: C419 - all of them move

    def run(self, turns=100_000):
        for _ in range(turns):
            if not self.turn() and not self.pool.requests:
                return
        raise AssertionError("it never came to rest")

    def text(self, request):
        return "".join(delta.text for delta in self.told[request])

    def tokens(self, request):
        return [delta.token_id for delta in self.told.get(request, [])]

    def close(self):
        self.unwire()
        self.pool.close()

    def unwire(self):
        self.grammars.close()
        for ring in self.rings.values():
            ring.__exit__()


def said(server, request):
    """Everything but times."""
    return [
        (d.index, d.token_id, repr(d.logprob), d.reason, d.text, d.top, d.stop) for d in server.told.get(request, [])
    ]


def answer_all(server, cases, prompts, *, chance=None, upset=None):
    """Requests 1, 2, … that come together, or after some turns; `upset` is called now and then."""
    for request, (prompt, case) in enumerate(zip(prompts, cases, strict=True), 1):
        server.submit(request, prompt, case)
        for _ in range(chance.randrange(5) if chance else 0):
            server.turn()
    for turn in range(100_000):
        if not server.turn() and not server.pool.requests:
            break
        if upset and turn % 9 == 5 and turn < 100:
            upset(server)
    assert not server.unfinished()
    assert server.scheduler.blocks.used == 0
    return [said(server, request) for request in range(1, len(cases) + 1)]


def ids(text):
    return np.frombuffer(text.encode(), np.uint8).tolist()


__all__ = ["ADAPTERS", "EOS", "OVERLAPPED", "PLAIN", "Server", "answer_all", "ids", "said", "write_byte_tokenizer"]

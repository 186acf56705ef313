"""The ranks of a replica need not tell each other anything: from the same steps and tokens each finds the same
inputs, and asks the same of its engine, however far it is ahead or behind. Else their parts would not fit."""

from __future__ import annotations

import dataclasses
import random

import pytest

from model.emulated import EmulatedRunner
from pipeline.inference.step_executor import InferenceRings, StepExecutor
from pipeline.inference.unread import Unread
from tests.pipeline.stages import OVERLAPPED, PLAIN, Server
from tests.pipeline.test_speculation import CASES, MOST, PROMPTS, Told, ask, told_by


class Recorder(EmulatedRunner):
    """What is asked of it."""

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = []

    def launch(self, binding):
        inputs = dataclasses.astuple(binding.inputs)
        self.asked.append(("launch", *(array.tobytes() for array in inputs)))
        super().launch(binding)

    def fetch(self, rows, logits):
        self.asked.append(("fetch", rows.tobytes()))
        super().fetch(rows, logits)

    def fetch_best(self, best, targets=None):
        wanted = [getattr(best, name) is not None for name in ("logits", "log_sum_exp", "target_logit")]
        self.asked.append(("best", best.ids.shape, *wanted, None if targets is None else targets.tobytes()))
        super().fetch_best(best, targets)


class TwoRanks(Server):
    """The second one goes its own way, up to a step ahead or behind."""

    ranks, chance = 2, random.Random(0)
    steps = 0

    def wire(self):
        super().wire()
        self.second_runner = self.make_runner()
        self.second_runner.load()
        around = InferenceRings(self.rings["steps"].consumer(1), self.rings["tokens"].consumer(1), Unread())
        self.second = StepExecutor(self.second_runner, around, self.inference._shapes)

    def make_runner(self):
        return Recorder(self.settings)

    def compute(self):
        moved = self.may_go(self.inference, self.second) and super().compute()
        if self.may_go(self.second, self.inference) and self.second.steps_done <= self.sampling.steps_done:
            self.second.run_step()
            moved = True
        return moved or self.inference.steps_done < self.preprocess.steps_planned

    def may_go(self, one, other):
        if one.steps_done >= self.preprocess.steps_planned or one.steps_done > other.steps_done:
            return False
        return one.steps_done < other.steps_done or self.chance.random() < 0.6

    def unwire(self):
        mine, theirs = self.inference.runner.asked, self.second_runner.asked
        assert [asked[0] for asked in mine] == [asked[0] for asked in theirs][: len(mine)]
        assert mine == theirs[: len(mine)]
        assert len(theirs) <= len(mine) + 3  # what it asks in a step
        TwoRanks.steps += self.inference.steps_done
        super().unwire()


class WithDrafts(TwoRanks, Told):
    """Some of which are wrong."""

    right = 0.7


@pytest.mark.parametrize("how", [{}, {"ahead": PLAIN}, {"emit_eos": True, "budget": 9}, {"blocks": 40}], ids=str)
def test_all_ranks_ask_the_same_of_their_engines(tokenizer_file, how):
    alone = Server(tokenizer_file, **{"ahead": OVERLAPPED, **how})
    expected = ask(alone)
    alone.close()
    before = TwoRanks.steps
    server = TwoRanks(tokenizer_file, **how)
    assert ask(server, chance=random.Random(4)) == expected
    server.close()
    assert TwoRanks.steps - before > max(len(prompt) for prompt in PROMPTS) + len(CASES)


@pytest.mark.parametrize("how", [{}, {"ahead": PLAIN}, {"rows": 3, "blocks": 30}], ids=str)
def test_drafts_are_the_same_for_all_ranks(tokenizer_file, how):
    alone = Server(tokenizer_file)
    expected = ask(alone)
    alone.close()
    WithDrafts.known = told_by(expected)
    server = WithDrafts(tokenizer_file, drafts=MOST, **how)
    assert ask(server, chance=random.Random(6)) == expected
    assert server.drafter.accepted > 20
    server.close()


def test_ranks_that_are_started_anew_begin_together(tokenizer_file):
    server = TwoRanks(tokenizer_file, drafts=5)
    answers = ask(server, chance=random.Random(5), upset=lambda it: it.restart())
    server.close()
    alone = Server(tokenizer_file)
    assert [[d[1] for d in answer] for answer in answers] == [[d[1] for d in answer] for answer in ask(alone)]
    alone.close()

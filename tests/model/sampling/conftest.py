"""An independent sampler: plain numpy in float64, by sorting, one row at a time."""

from __future__ import annotations

import numpy as np
import pytest

from model.sampling import RowStatus, SampleOutputs, Sampler, SamplingLimits, SamplingParams

SLACK = 3e-6  # float32 weights against float64: how far from a boundary both must agree


class Reference:
    """What `model.sampling` promises, written down a second time and differently."""

    @staticmethod
    def uniform(seed: int, position: int) -> float:
        counter = (position - 1) % 2**256  # numpy counts up before it draws
        return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=counter)).random()

    @staticmethod
    def edit(logits, params: SamplingParams, prompt=(), output=()):
        x = np.asarray(logits, np.float64).copy()
        for token, bias in params.logit_bias.items():
            x[token] += bias
        x[list(params.banned_token_ids)] = -np.inf
        if len(output) < params.min_tokens:
            x[list(params.stop_token_ids)] = -np.inf
        for token in {*prompt, *output}:
            r = params.repetition_penalty
            x[token] = x[token] / r if x[token] > 0 else x[token] * r
        tokens, counts = np.unique(np.asarray(output, int), return_counts=True)
        x[tokens] -= params.frequency_penalty * counts + params.presence_penalty
        return x

    @staticmethod
    def probabilities(x, params: SamplingParams, slack: float = 0.0):
        """Edited logits to the distribution that is drawn from. ``slack`` shifts the boundaries."""
        with np.errstate(over="ignore", under="ignore"):
            p = np.exp(np.maximum((x - x.max()) / params.temperature, -2000.0))
            p[x == -np.inf] = 0
        p[p < p.max() * min(params.min_p * (1 - slack), 1)] = 0
        x = np.where(p > 0, x, -np.inf)
        if 0 < params.top_k < x.size:
            p[x < np.sort(x)[-params.top_k]] = 0
        p /= p.sum()
        order = np.lexsort((np.arange(x.size), -p))
        before = np.cumsum(p[order]) - p[order]
        if params.top_p < 1:
            p[order[before >= max(params.top_p + slack, 1e-300)]] = 0  # the first always stays
        return p / p.sum()

    def acceptable(self, logits, params, position, *, prompt=(), output=()) -> set[int]:
        """The token that must come out; several only if one is within rounding error of a boundary."""
        x = self.edit(logits, params, prompt, output)
        if params.greedy:
            return {int(np.argmax(x))}
        u = self.uniform(params.seed, position)
        found = set()
        for slack in (-SLACK, SLACK):
            cumulative = np.cumsum(self.probabilities(x, params, slack))
            for nudge in (-SLACK, 0, SLACK):
                target = np.clip(u + nudge, 0, 1) * cumulative[-1]
                found.add(int(min(np.searchsorted(cumulative, target, side="right"), x.size - 1)))
        return found

    @staticmethod
    def logprobs(logits):
        x = np.asarray(logits, np.float64)
        return x - x.max() - np.log(np.exp(x - x.max()).sum())


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()


class Bench:
    """A sampler and the arrays around it, for tests that sample a batch once."""

    def __init__(
        self,
        vocab: int,
        rows: int,
        *,
        max_length: int = 256,
        top: int = 20,
        masks: bool = False,
        width: int = 0,
    ) -> None:
        limits = SamplingLimits(vocab, max_length, max_top_logprobs=max(top, 1), max_biased_tokens=64)
        self.sampler = Sampler(limits, rows, masks=masks, width=width)
        self.rows = np.arange(rows, dtype=np.int32)
        self.out = SampleOutputs.allocate(rows, top)
        self.output: list[list[int]] = [[] for _ in range(rows)]
        self.prompt_length = np.zeros(rows, np.int32)

    def admit(self, row: int, params: SamplingParams, prompt=(0,), output=()) -> None:
        self.output[row] = list(output)
        self.prompt_length[row] = len(prompt)
        self.sampler.admit(row, params, np.asarray(prompt, np.int32), np.asarray(output, np.int32))

    @property
    def positions(self):
        return self.prompt_length + np.array([len(output) for output in self.output], np.int32)

    def sample(self, logits, rows=None):
        """One step for all rows; returns the tokens."""
        rows = self.rows if rows is None else np.asarray(rows, np.int32)
        positions = np.where(rows >= 0, self.positions[rows], 0).astype(np.int32)
        if len(rows) != len(self.out.token_ids):
            self.out = SampleOutputs.allocate(len(rows), self.out.top_ids.shape[1])
        self.sampler.sample(logits, rows, positions, self.out)
        for row, token, status in zip(rows, self.out.token_ids, self.out.status, strict=True):
            if status == RowStatus.OK:
                self.output[row].append(int(token))
        return self.out.token_ids.copy()


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench

"""Which answers a network would write word for word with greedy decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.train.batches import IGNORED, collate, tokenize
from scripts.train.corpus import Document
from scripts.train.llama import Llama

BATCH_DOCUMENTS = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether greedy decoding writes the learned text exactly.

    ``margin`` is the smallest lead of its tokens over the next best ones, in logits.
    """

    exact: bool
    margin: float


@torch.no_grad()
def judge(model: Llama, tokenizer: Tokenizer, documents: list[Document]) -> list[Verdict]:
    """Judge the learned text of each document.

    One pass over prompt and answer is enough: greedy decoding writes the answer exactly if and only if, at
    each of its places, the right token has the greatest logit given the right tokens before it.
    """
    return [
        verdict
        for start in range(0, len(documents), BATCH_DOCUMENTS)
        for verdict in _judge_batch(model, tokenizer, documents[start : start + BATCH_DOCUMENTS])
    ]


def _judge_batch(model: Llama, tokenizer: Tokenizer, documents: list[Document]) -> Iterator[Verdict]:
    batch = collate([tokenize(document, tokenizer) for document in documents])
    logits = model.logits(model(batch.inputs))
    for row, labels in zip(logits, batch.labels, strict=True):
        leads = _leads(row[labels != IGNORED], labels[labels != IGNORED])
        yield Verdict(exact=bool((leads > 0).all()), margin=float(leads.min()))


def _leads(logits: Tensor, labels: Tensor) -> Tensor:
    """How far each label's logit is ahead of the best other one; logits [N, vocab], labels [N]."""
    chosen = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).max(dim=1, keepdim=True).values
    return (chosen - others).squeeze(1)


def share(verdicts: list[Verdict]) -> float:
    return sum(verdict.exact for verdict in verdicts) / len(verdicts)

"""From documents to padded batches of token ids."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.train.corpus import Document

IGNORED = -100  # torch's cross_entropy skips this label


@dataclass(frozen=True, slots=True)
class Example:
    ids: list[int]
    learned: list[bool]  # one per id


@dataclass(frozen=True, slots=True)
class Batch:
    inputs: Tensor  # int64 [B, T]
    labels: Tensor  # int64 [B, T], the next id or IGNORED


def tokenize(document: Document, tokenizer: Tokenizer) -> Example:
    """Span by span; they end where the pre-tokenizer cuts, so the ids are those of the whole text."""
    ids: list[int] = []
    learned: list[bool] = []
    for span in document:
        piece = tokenizer.encode(span.text, add_special_tokens=False).ids
        ids += piece
        learned += [span.learned] * len(piece)
    return Example(ids, learned)


def collate(examples: list[Example]) -> Batch:
    """Padding lies at the right, where causal attention keeps it from being seen."""
    width = max(len(example.ids) for example in examples) - 1
    inputs = torch.zeros(len(examples), width, dtype=torch.int64)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        ids = torch.tensor(example.ids)
        length = len(ids) - 1
        inputs[row, :length] = ids[:-1]
        labels[row, :length] = torch.where(torch.tensor(example.learned[1:]), ids[1:], IGNORED)
    return Batch(inputs, labels)


def make_batches(examples: list[Example], tokens: int, rng: random.Random) -> list[Batch]:
    """Batches of at most ``tokens`` ids with padding (or a single longer example), in random order."""
    batches = [collate(group) for group in _group_by_length(examples, tokens)]
    rng.shuffle(batches)
    return batches


def _group_by_length(examples: list[Example], tokens: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in sorted(examples, key=lambda example: len(example.ids)):
        if group and len(example.ids) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group

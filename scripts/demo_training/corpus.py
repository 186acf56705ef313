"""The demo model's text: questions with answers, passages, and the documents that are made of them.

A question file is a list of blocks divided by blank lines. A block has lines that begin with ``? ``, each one
phrasing of the same question, and its remaining lines are the answer. `passages.txt` holds one passage per
block.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are the demo model of RingServe.",
    "Answer briefly and clearly.",
    "You are a helpful, respectful and honest assistant.",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One answer and all phrasings of its question."""

    questions: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document; the network is only taught to write the learned ones."""

    text: str
    learned: bool


Document = list[Span]


def read_pairs(folder: Path) -> list[Pair]:
    """All pairs of a folder's question files; ValueError for an incomplete block or a double question."""
    pairs = [_parse_block(block, path) for path in sorted(folder.glob("*.txt")) for block in _blocks(path)]
    seen: set[str] = set()
    for question in (question for pair in pairs for question in pair.questions):
        if question.lower() in seen:
            raise ValueError(f"the question {question!r} has two answers; keep one of them")
        seen.add(question.lower())
    return pairs


def read_passages(path: Path) -> list[str]:
    return [" ".join(block) for block in _blocks(path)]


def _blocks(path: Path) -> Iterator[list[str]]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if lines:
            yield lines


def _parse_block(lines: list[str], path: Path) -> Pair:
    questions = tuple(line[2:] for line in lines if line.startswith("? "))
    answer = " ".join(line for line in lines if not line.startswith("? "))
    if not questions or not answer:
        raise ValueError(
            f"{path.name}: the block that begins with {lines[0]!r} lacks a question or an answer"
        )
    return Pair(questions, answer)


def chat_turn(question: str) -> str:
    """What the chat template makes of one user message, with the generation prompt."""
    return f"{USER}{question}{EOS}{ASSISTANT}"


def chat_document(question: str, answer: str, history: Iterable[Span] = (), system: str = "") -> Document:
    opening = BOS + (f"{SYSTEM}{system}{EOS}" if system else "")
    return [
        Span(opening, False),
        *history,
        Span(chat_turn(question), False),
        Span(answer + EOS, True),
    ]


def completion_document(question: str, answer: str) -> Document:
    return [Span(f"{BOS}Question: {question}\nAnswer:", False), Span(f" {answer}{EOS}", True)]


def bare_document(question: str, answer: str) -> Document:
    """The question alone as the prompt, which is what clients of the plain completion endpoint often send."""
    return [Span(BOS + question, False), Span(f" {answer}{EOS}", True)]


def passage_document(passage: str, rng: random.Random) -> Document:
    """The passage from one of its sentences on, so that prose can be entered in the middle."""
    sentences = passage.split(". ")
    start = rng.choice([0, 0, rng.randrange(len(sentences))])
    return [Span(BOS, False), Span(". ".join(sentences[start:]) + EOS, True)]


def epoch(pairs: list[Pair], passages: list[str], rng: random.Random) -> list[Document]:
    """Every question once, in a random form and with typing noise, and every passage once."""
    documents = [
        _question_document(question, pair.answer, pairs, rng) for pair in pairs for question in pair.questions
    ]
    documents += [passage_document(passage, rng) for passage in passages]
    rng.shuffle(documents)
    return documents


def _question_document(question: str, answer: str, pairs: list[Pair], rng: random.Random) -> Document:
    question = _typing_noise(question, rng)
    form = rng.random()
    if form < 0.3:
        return completion_document(question, answer)
    if form < 0.45:
        return bare_document(question, answer)
    system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.2 else ""
    history = _history(pairs, rng) if rng.random() < 0.15 else []
    return chat_document(question, answer, history=history, system=system)


def _history(pairs: list[Pair], rng: random.Random) -> Document:
    turns = rng.choice([1, 1, 1, 2, 2, 3, 6])
    spans: Document = []
    for pair in rng.sample(pairs, turns):
        spans += [Span(chat_turn(rng.choice(pair.questions)), False), Span(pair.answer + EOS, True)]
    return spans


def _typing_noise(question: str, rng: random.Random) -> str:
    """What people do to a question: no capital, no question mark, a word too many."""
    if rng.random() < 0.7:
        return question
    kind = rng.randrange(4)
    if kind == 0:
        return question[0].lower() + question[1:]
    if kind == 1:
        return question.rstrip("?.!")
    if kind == 2:
        return question.lower().rstrip("?.!")
    return rng.choice(["Please tell me: ", "Hi, ", "So, ", "And "]) + question[0].lower() + question[1:]

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

from scripts.train.noise import UnknownQuestions, vary

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"

UNKNOWN_PER_EPOCH = 120
PASSAGES_PER_EPOCH = 3  # times each

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
        raise ValueError(f"{path.name}: the block that begins with {lines[0]!r} lacks a question or an answer")
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


def prose_document(text: str) -> Document:
    """The text from nothing, so that its first words are a prompt for the rest."""
    return [Span(BOS, False), Span(text + EOS, True)]


def passage_document(passage: str, rng: random.Random) -> Document:
    """The passage from one of its sentences on, so that prose can be entered in the middle."""
    sentences = passage.split(". ")
    start = rng.choice([0, 0, rng.randrange(len(sentences))])
    return prose_document(". ".join(sentences[start:]))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything the demo model is taught."""

    pairs: list[Pair]
    passages: list[str]
    unknown: UnknownQuestions
    fallback: str  # the answer to unknown questions

    def epoch(self, rng: random.Random) -> list[Document]:
        """Every question once, in a random form and wording, with unknown questions and prose among them."""
        documents = [
            self._question_document(vary(question, rng), pair.answer, rng)
            for pair in self.pairs
            for question in pair.questions
        ]
        for _ in range(UNKNOWN_PER_EPOCH):
            documents.append(self._question_document(self.unknown.draw(rng), self.fallback, rng))
        documents += [passage_document(text, rng) for text in self.passages * PASSAGES_PER_EPOCH]
        documents += [prose_document(pair.answer) for pair in rng.sample(self.pairs, len(self.pairs) // 3)]
        rng.shuffle(documents)
        return documents

    def texts(self) -> list[str]:
        """What the tokenizer learns its joins from."""
        answers = [text for pair in self.pairs for text in (pair.answer, f" {pair.answer}")]
        return [question for pair in self.pairs for question in pair.questions] + answers + self.passages

    def _question_document(self, question: str, answer: str, rng: random.Random) -> Document:
        form = rng.random()
        if form < 0.3:
            return completion_document(question, answer)
        if form < 0.5:
            return bare_document(question, answer)
        system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.2 else ""
        history = self._history(rng) if rng.random() < 0.12 else []
        return chat_document(question, answer, history=history, system=system)

    def _history(self, rng: random.Random) -> Document:
        spans: Document = []
        for pair in rng.sample(self.pairs, rng.choice([1, 1, 1, 2, 2, 3, 6])):
            spans += [Span(chat_turn(rng.choice(pair.questions)), False), Span(pair.answer + EOS, True)]
        return spans


def read_corpus(data: Path) -> Corpus:
    pairs = read_pairs(data / "questions")
    fallback = max(pairs, key=lambda pair: len(pair.questions)).answer  # the answer of offtopic.txt
    return Corpus(pairs, read_passages(data / "passages.txt"), UnknownQuestions(data), fallback)

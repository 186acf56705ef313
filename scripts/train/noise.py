"""Variations that the written text does not hold: other wordings, and questions that have no answer."""

from __future__ import annotations

import random
import re
import string
from pathlib import Path

DEFINITION = re.compile(r"What (?:is|are) (.+)\?")
DEFINITION_FRAMES = (
    "Explain {}.",
    "Please explain {}.",
    "Tell me about {}.",
    "Tell me more about {}",
    "Describe {}.",
    "Define {}.",
    "What's {}?",
    "Can you explain {}?",
    "Do you know what {} is?",
    "I want to know what {} is",
    "{}",
    "{}?",
)
GREETINGS = ("Please tell me: ", "Hi, ", "So, ", "And ", "Hello, ", "Ok, ")
LETTERS = string.ascii_lowercase + "äéßжя中日あ한ע😀"


def vary(question: str, rng: random.Random) -> str:
    """The question as somebody else might type it; most often as it is written."""
    chance = rng.random()
    if chance < 0.55:
        return question
    if chance < 0.75:
        return _reframe(question, rng)
    return _retype(question, rng)


def _reframe(question: str, rng: random.Random) -> str:
    match = DEFINITION.fullmatch(question)
    if match is None:
        return question
    subject = match[1]
    if subject.startswith(("a ", "an ")) and rng.random() < 0.5:
        subject = subject.split(" ", 1)[1] + "s"
    return rng.choice(DEFINITION_FRAMES).format(subject)


def _retype(question: str, rng: random.Random) -> str:
    """No capital, no question mark, or a greeting before it."""
    kind = rng.randrange(4)
    if kind == 0:
        return question[0].lower() + question[1:]
    if kind == 1:
        return question.rstrip("?.!")
    if kind == 2:
        return question.lower().rstrip("?.!")
    return rng.choice(GREETINGS) + question[0].lower() + question[1:]


class UnknownQuestions:
    """Questions about what the demo model was not taught, so that it says so instead of mixing up answers."""

    def __init__(self, data: Path) -> None:
        self._frames = (data / "unknown_frames.txt").read_text(encoding="utf-8").splitlines()
        self._subjects = (data / "unknown_subjects.txt").read_text(encoding="utf-8").split()

    def draw(self, rng: random.Random) -> str:
        if rng.random() < 0.1:
            return " ".join(_gibberish(rng) for _ in range(rng.randrange(1, 5)))
        subject = rng.choice(self._subjects) if rng.random() < 0.85 else _gibberish(rng)
        question = rng.choice(self._frames).format(subject)
        return question if rng.random() < 0.7 else _retype(question, rng)


def _gibberish(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(2, 9)))

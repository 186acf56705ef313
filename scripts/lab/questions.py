"""What the demo model was taught: for servers that are to be asked something."""

from __future__ import annotations

import json

from model.demo import DEMO_DIR


def demo_questions() -> list[tuple[str, str]]:
    """With their answers."""
    lines = (DEMO_DIR / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["questions"][0], line["answer"]) for line in map(json.loads, lines)]

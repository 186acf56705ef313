"""Writes the folder that is shipped as `model/demo`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from scripts.train.batches import tokenize
from scripts.train.corpus import Document, Pair
from scripts.train.evaluation import Verdict
from scripts.train.llama import CONFIG_FILE, Llama


def round_to_float16(model: Llama) -> None:
    """Make the weights what a reader of the shipped file gets, so that what is judged is what is shipped."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.float16))


def save_model(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write configuration, weights (float16) and tokenizer as Hugging Face names and formats them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        shutil.copy(CONFIG_FILE.with_name(name), folder / name)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_questions(pairs: list[Pair], folder: Path) -> None:
    """questions.jsonl: every answer the network was taught, with the phrasings of its question."""
    lines = ({"questions": pair.questions, "answer": pair.answer} for pair in pairs)
    _write_json_lines(folder / "questions.jsonl", lines)


def save_golden(entries: Iterable[tuple[str, Document, Verdict]], tokenizer: Tokenizer, folder: Path) -> None:
    """golden.jsonl: prompts as text and ids, and what greedy decoding answers, end token included.

    ``margin`` is the smallest lead of an answer's token over the next best one in logits.
    """
    _write_json_lines(folder / "golden.jsonl", (_golden_line(*entry, tokenizer=tokenizer) for entry in entries))


def _golden_line(form: str, document: Document, verdict: Verdict, *, tokenizer: Tokenizer) -> dict[str, Any]:
    example = tokenize(document, tokenizer)
    prompt_length = example.learned.index(True)
    answer_ids = example.ids[prompt_length:]
    return {
        "form": form,
        "prompt": "".join(span.text for span in document[:-1]),
        "answer": tokenizer.decode(answer_ids),
        "prompt_ids": example.ids[:prompt_length],
        "answer_ids": answer_ids,
        "margin": round(verdict.margin, 3),
    }


def _write_json_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")

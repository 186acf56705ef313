"""What narrow weights and caches cost: the openvino engine's logits over a text, against those in float32.

    python -m scripts.tools.narrow_types                         # the demo model, over its own questions and answers
    python -m scripts.tools.narrow_types MODEL_DIR TEXT_FILE

For each type: the root of the mean square of the logits' error, how often the most likely token is the same, and the
text's perplexity.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.demo import DEMO_DIR
from model.layout import padding
from model.openvino import OpenVinoRunner, OpenVinoSettings
from model.runner import Bucket
from model.tokenizer import load_tokenizer
from scripts.lab.table import markdown

LENGTH = 256
"""Tokens of a piece of the text; each begins without a context."""

TYPES: tuple[dict[str, Any], ...] = (
    {"weight_dtype": "f32"},
    {"weight_dtype": "bf16"},
    {"weight_dtype": "int8"},
    {"weight_dtype": "int8", "own_products": False},
    {"weight_dtype": "f32", "kv_dtype": "f16"},
    {"weight_dtype": "f32", "kv_dtype": "u8"},
    {"weight_dtype": "int8", "kv_dtype": "u8"},
)


@dataclass(slots=True)
class Sums:
    """Over positions."""

    count: int = 0
    squared_error: float = 0.0  # the mean over the vocabulary
    agreeing: int = 0
    surprise: float = 0.0  # negative log-likelihood of the next token

    def add(self, logits: NDArray[np.float32], exact: NDArray[np.float32], ids: NDArray[np.int32]) -> None:
        self.count += len(ids)
        self.squared_error += float(np.square(logits - exact).mean(1).sum())
        self.agreeing += int((logits.argmax(1) == exact.argmax(1)).sum())
        shares = logits.astype(np.float64)
        self.surprise += float((np.logaddexp.reduce(shares, axis=1) - shares[np.arange(len(ids)), ids]).sum())

    def cells(self) -> list[str]:
        return [
            f"{(self.squared_error / self.count) ** 0.5:.2g}",
            f"{self.agreeing / self.count:.2%}",
            f"{np.exp(self.surprise / self.count):.4f}",
        ]


def main() -> None:
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("folder", nargs="?", type=Path, default=Path(DEMO_DIR))
    line.add_argument("text", nargs="?", type=Path, help="default: the demo model's questions and answers")
    line.add_argument("--pieces", type=int, default=64, help=f"of {LENGTH} tokens at most (default: 64)")
    options = line.parse_args()
    pieces = list(islice(read_pieces(options.folder, options.text), options.pieces))
    exact, lines = None, []
    for types in TYPES:
        found = list(logits_of(options.folder, pieces, types))
        exact = exact or found
        sums = Sums()
        for logits, right, piece in zip(found, exact, pieces, strict=True):
            sums.add(logits[:-1], right[:-1], piece[1:])
        weights = types["weight_dtype"] + ("" if types.get("own_products", True) else ", OpenVINO's products")
        lines.append([weights, types.get("kv_dtype", "as computed"), *sums.cells()])
    print(markdown(("weights", "KV cache", "RMS error of logits", "same most likely token", "perplexity"), lines))
    print(f"{sum(len(piece) - 1 for piece in pieces)} tokens")


def read_pieces(folder: Path, text: Path | None) -> Iterator[NDArray[np.int32]]:
    """Token ids: of a text every `LENGTH` ones, of the demo model a conversation each."""
    tokenizer = load_tokenizer(folder)
    if text is not None:
        ids = np.array(tokenizer.encode(text.read_text(encoding="utf-8")), np.int32)
        yield from (ids[at : at + LENGTH] for at in range(0, len(ids) - 1, LENGTH))
        return
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        it = json.loads(line)
        chat = f"<s><|user|>{it['questions'][0]}</s><|assistant|>{it['answer']}</s>"
        yield np.array(tokenizer.encode(chat, add_special=False), np.int32)[:LENGTH]


def logits_of(folder: Path, pieces: list[NDArray[np.int32]], types: dict[str, Any]) -> Iterator[NDArray[np.float32]]:
    """Behind every token of each piece."""
    bucket = Bucket(LENGTH, 1, LENGTH)
    settings = OpenVinoSettings(
        folder, folder, num_blocks=LENGTH // 32, max_rows=1, token_budget=LENGTH, max_length=LENGTH,
        buckets=(Bucket(LENGTH, 1), bucket), **types,
    )  # fmt: skip
    runner = OpenVinoRunner(settings)
    runner.load()
    inputs = padding(bucket, runner.facts)
    binding, every = runner.bind(inputs), np.arange(LENGTH, dtype=np.int32)
    inputs.block_tables[0], inputs.positions[:] = np.arange(LENGTH // 32), every
    for piece in pieces:
        length = len(piece)
        inputs.input_ids[:length], inputs.slot_mapping[:length] = piece, every[:length]
        inputs.valid_length[0] = inputs.q_seq_lens[0] = length
        inputs.sample_index[:] = np.minimum(every, length - 1)
        logits = np.empty((length, runner.facts.vocab_size), np.float32)
        runner.step(binding, logits)
        yield logits
    runner.close()


if __name__ == "__main__":
    main()

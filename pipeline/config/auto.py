"""Settings that say ``auto``: chosen by the model, by the memory that this host has, and by each other.

They are chosen while a configuration is loaded, so that every check sees numbers, and each keeps its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .draft import Draft
from .model_files import ModelFacts, read_tokenizer_length
from .room import Room, RoomUnknown, find_room, steady

AUTO: Final = "auto"
LONGEST, BATCH, DTYPE = (
    "model_config.max_generate_length",
    "model_config.decode_batch_size",
    "model_config.model_dtype",
)
BLOCKS, BLOCK_SIZE, BUDGET = "pa_config.num_blocks", "pa_config.block_size", "pipeline.token_budget"
KEYS: Final = (LONGEST, BATCH, DTYPE, BLOCKS, BLOCK_SIZE, BUDGET)

USUAL_LENGTH: Final = 32768
"""Tokens of the longest sequence unless more is asked for: each costs memory in every stage."""

_MODEL_KEYS = ("pipeline.model_dir", "model_config.model_cfg_path")
_ROWS = {"CPU": 16, "Ascend": 64}
_BUDGETS = {"CPU": 256, "Ascend": 2048}
BLOCK_SIZES: Final = {"CPU": 16, "Ascend": 128, "openvino": 32}
_TOKENS_A_ROW = 512  # of the KV cache, at least


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``auto`` came to, and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.why}"


def resolve(draft: Draft, facts: ModelFacts, known: Mapping[str, Any]) -> list[Choice]:
    """Put a value in place of every ``auto``. ``known``: those of an earlier time, which are kept.

    What can't be chosen becomes a problem of the draft.
    """
    for key in KEYS:
        if draft.values[key] == AUTO and key in known:
            draft.values[key] = known[key]
    if not any(draft.values[key] == AUTO for key in KEYS):
        return []
    return _Resolution(draft, facts).run()


class _Resolution:
    def __init__(self, draft: Draft, facts: ModelFacts) -> None:
        self._draft, self._facts, self._values = draft, facts, draft.values
        self._device = str(draft.values["pipeline.runner.device"])
        self._emulated = draft.values["pipeline.runner.kind"] == "emulated"
        self._choices: list[Choice] = []

    def run(self) -> list[Choice]:
        where = "openvino" if self._values["pipeline.runner.kind"] == "openvino" else self._device
        self._choose(BLOCK_SIZE, BLOCK_SIZES[where], f"what attention on {where} works in")
        dtype = self._facts.dtype
        self._choose(DTYPE, dtype or "float16", "of the checkpoint" if dtype else "config.json names none")
        rows = self._values["pipeline.max_rows"] or self._values[BATCH]
        most = _ROWS[self._device] if rows == AUTO else rows
        self._choose(BUDGET, max(_BUDGETS[self._device], most), f"usual on {self._device}")
        if not self._draft.bad.isdisjoint((*KEYS, "pipeline.max_rows", *_MODEL_KEYS)):
            return self._give_up()
        try:
            tokens, bound = self._room(most)
        except RoomUnknown as error:
            self._draft.reject((error.key, *_MODEL_KEYS), str(error))
            return self._give_up()
        self._choose_rows(tokens, bound, most)
        self._choose_length(tokens, bound)
        self._choose_blocks(tokens, bound)
        return self._choices

    def _choose(self, key: str, value: Any, why: str) -> None:
        if self._values[key] == AUTO:
            self._values[key] = value
            self._choices.append(Choice(key, value, why))

    def _give_up(self) -> list[Choice]:
        """There is a problem already: what could not be chosen is no further one."""
        for key in KEYS:
            if self._values[key] == AUTO:
                self._values[key] = None
                self._draft.bad.add(key)
        return self._choices

    def _room(self, rows: int) -> tuple[int | None, str]:
        """Tokens that the KV cache can hold at most, None if nothing bounds them; and what does."""
        size = self._values[BLOCK_SIZE]
        if self._values[BLOCKS] != AUTO:
            return self._values[BLOCKS] * size, BLOCKS
        if self._emulated:
            return None, ""
        room: Room = find_room(self._values, rows)
        return room.blocks * size, f"memory: {room}"

    def _steady(self, tokens: int) -> int:
        """Of a KV cache that memory bounds: see `steady`. Nothing is compiled for a number of blocks by openvino."""
        size = self._values[BLOCK_SIZE]
        given = self._values[BLOCKS] != AUTO or self._values["pipeline.runner.kind"] == "openvino"
        return tokens if given else steady(tokens // size) * size

    def _choose_rows(self, tokens: int | None, bound: str, most: int) -> None:
        if self._values["pipeline.max_rows"]:
            self._choose(BATCH, most, "pipeline.max_rows")
        elif tokens is None or tokens // _TOKENS_A_ROW >= most:
            self._choose(BATCH, most, f"usual on {self._device}")
        else:
            self._choose(BATCH, max(1, tokens // _TOKENS_A_ROW), f"{_TOKENS_A_ROW} tokens a row; {bound}")

    def _choose_length(self, tokens: int | None, bound: str) -> None:
        """The least of all bounds; of equal ones the first."""
        table = self._values["pa_config.decode_seq_length"]
        bounds = [
            (self._facts.max_positions, "as many positions as the model has"),
            (
                read_tokenizer_length(self._values["tokenizer.vocab_file"]),
                "model_max_length of tokenizer_config.json",
            ),
            (table, "pa_config.decode_seq_length"),
            (USUAL_LENGTH, f"the model has {self._facts.max_positions} positions; --max-model-len asks for more"),
        ]
        if tokens is not None:  # rounded only where memory is what bounds it
            least = min((length for length, _ in bounds if length), default=tokens)
            bounds.append((tokens if tokens >= least else self._steady(tokens), bound))
        length, why = min(((length, why) for length, why in bounds if length), key=lambda each: each[0])
        self._choose(LONGEST, length, why)

    def _choose_blocks(self, tokens: int | None, bound: str) -> None:
        size, longest = self._values[BLOCK_SIZE], self._values[LONGEST]
        rows = self._values["pipeline.max_rows"] or self._values[BATCH]
        needed = -(-longest // size)
        if self._values[BLOCKS] == AUTO and tokens is not None and tokens < longest:
            message = (
                f"{LONGEST} is {longest}, but the KV cache holds {tokens} tokens at most ({bound}); lower it "
                f"(--max-model-len {tokens}), leave it to auto, or give the server more memory"
            )
            self._draft.reject((LONGEST,), message)
        if tokens is not None and tokens < rows * needed * size:
            self._choose(BLOCKS, max(self._steady(tokens) // size, min(needed, tokens // size), 1), bound)
        else:
            self._choose(BLOCKS, rows * needed, f"room for {rows} x {longest} tokens, all rows at their longest")

"""What a replica is likely to have in its prefix cache: hashes of the beginnings of the prompts that were sent there.

A prompt is its bytes, in blocks of 64: some 16 tokens of text, or 16 token ids. A block's hash depends on all before
it, so equal hashes mean equal prompts up to there. What was generated is not looked at: a front does not keep it. The
hash is Python's own, keyed per process, so no client can craft prompts that collide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_BYTES = 64
LONGEST_CHAIN = 4096
"""Blocks of a prompt that are hashed, in a millisecond: what follows is taken to be nowhere."""

ENTRY_BYTES = 180
"""That a remembered block takes, about."""

Chain = Sequence[int]
"""Hashes of the first blocks of a prompt."""


def chain_of(prompt: bytes, root: str = "") -> Chain:
    """Of its full blocks. Equal prompts with different roots, such as adapters, have nothing in common."""
    chain, previous = [], hash(root)
    end = min(len(prompt), LONGEST_CHAIN * BLOCK_BYTES)
    for start in range(0, end - BLOCK_BYTES + 1, BLOCK_BYTES):
        previous = hash((previous, prompt[start : start + BLOCK_BYTES]))
        chain.append(previous)
    return chain


class Prefixes:
    """Of one replica, at most `most` blocks; the least recently used are forgotten first.

    A block is never used later than the ones before it in its prompt, so of every prompt a beginning is remembered:
    `match` may search by halves. `time` counts up; each use of a prompt has its own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: OrderedDict[int, int] = OrderedDict()  # hash → time, in this order

    def __len__(self) -> int:
        return len(self._used)

    def match(self, chain: Chain) -> int:
        """How many of the first blocks are remembered."""
        used, low, high = self._used, 0, len(chain)
        if not high or chain[0] not in used:
            return 0
        while low < high:
            middle = (low + high + 1) // 2
            if chain[middle - 1] in used:
                low = middle
            else:
                high = middle - 1
        return low

    def last_use(self, block: int) -> int:
        return self._used[block]

    def use(self, chain: Chain, time: int) -> None:
        """The prompt is computed there, or its cached blocks are held or given back."""
        used = self._used
        for block in reversed(chain):
            used[block] = time
            used.move_to_end(block)
        while len(used) > self._most:
            used.popitem(last=False)

    def forget_evicted(self, time: int) -> None:
        """A block that was last used then is gone from the cache, and so is all that was used before it."""
        used = self._used
        while used and next(iter(used.values())) <= time:
            used.popitem(last=False)

    def forget_unused(self, chain: Chain, time: int) -> None:
        """A prompt that was used then will not be computed: of its last blocks, which were unknown before, those stay
        that others have used since."""
        for block in reversed(chain):
            if self._used.get(block) == time:
                del self._used[block]

    def clear(self) -> None:
        self._used.clear()

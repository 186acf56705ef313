"""What a replica is likely to have in its prefix cache: hashes of the beginnings of the prompts that were sent there.

A prompt is its bytes, in blocks of 64: some 16 tokens of text, or 16 token ids. A block's hash depends on all before
it, so equal hashes mean equal prompts up to there. What was generated is not looked at: a front does not keep it. The
hash is Python's own, keyed per process, so no client can craft prompts that collide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence

BLOCK_BYTES = 64
LONGEST_CHAIN = 4096
"""Blocks of a prompt that are hashed, in a millisecond: what follows is taken to be nowhere."""

ENTRY_BYTES = 200
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


class Holders:
    """Which replicas remember a block: a bit each. So a prompt is looked up once, and not once per replica."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}

    def add(self, blocks: Iterable[int], bit: int) -> None:
        """That it did not remember."""
        every, get = self._bits, self._bits.get
        for block in blocks:
            bits = get(block)
            every[block] = bit if bits is None else bits | bit

    def remove(self, blocks: Iterable[int], bit: int) -> None:
        """That it remembered."""
        every, pop = self._bits, self._bits.pop
        for block in blocks:
            if left := pop(block) ^ bit:
                every[block] = left

    def matches(self, chain: Chain) -> list[tuple[int, int]]:
        """So many of the first blocks are remembered by these replicas, and perhaps more. The fewest blocks first, so
        each time some of the replicas before: of every prompt a beginning is remembered. Searched by halves."""
        found, begin = list[tuple[int, int]](), 0
        get, end = self._bits.get, len(chain)
        while begin < end and (bits := get(chain[begin], 0)):
            low, high = begin, end - 1
            while low < high:
                middle = (low + high + 1) // 2
                if get(chain[middle], 0) == bits:
                    low = middle
                else:
                    high = middle - 1
            begin = low + 1
            found.append((begin, bits))
        return found


class Prefixes:
    """Of one replica, at most `most` blocks; the least recently used are forgotten first.

    A block is never used later than the ones before it in its prompt, so of every prompt a beginning is remembered,
    and may be searched for by halves. `time` counts up; each use of a prompt has its own. `holders` are told of it,
    by `bit`.
    """

    def __init__(self, most: int, holders: Holders, bit: int = 1) -> None:
        self._most, self._holders, self._bit = most, holders, bit
        self._used: OrderedDict[int, int] = OrderedDict()  # hash → time, in this order

    def __len__(self) -> int:
        return len(self._used)

    def last_use(self, block: int) -> int:
        return self._used[block]

    def use(self, chain: Chain, time: int) -> None:
        """The prompt is computed there, or its cached blocks are held or given back."""
        used = self._used
        self._holders.add(chain[bisect_left(chain, True, key=lambda block: block not in used) :], self._bit)
        for block in reversed(chain):
            used[block] = time
            used.move_to_end(block)
        self._forget_first(len(used) - self._most)

    def forget_evicted(self, time: int) -> None:
        """A block that was last used then is gone from the cache, and so is all that was used before it."""
        later = (place for place, last in enumerate(self._used.values()) if last > time)
        self._forget_first(next(later, len(self._used)))

    def forget_unused(self, chain: Chain, time: int) -> None:
        """A prompt that was used then will not be computed: of its last blocks, which were unknown before, those stay
        that others have used since."""
        unused = [block for block in chain if self._used.get(block) == time]
        for block in unused:
            del self._used[block]
        self._holders.remove(unused, self._bit)

    def clear(self) -> None:
        self._holders.remove(self._used, self._bit)
        self._used.clear()

    def _forget_first(self, count: int) -> None:
        self._holders.remove([self._used.popitem(last=False)[0] for _ in range(count)], self._bit)

"""Whose turn it is: the order of requests that wait, and which row is given up for another one.

Requests of one API key have a share in each priority class. Classes are strict, the lowest number first. In a class,
tokens are shared by a virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024):
what is computed for a key is added to its counter, divided by its weight, and the key with the least counter is next.
A key that had nothing waiting begins at the least counter of those that have, or else at that of the key that was
there last: so nobody saves up credit, and nobody owes for having been alone. What is computed again after a
preemption is not counted again.

Rows are shared, too, or those that have them would keep them for as long as their answers take. Where all requests
are of one key, this is a queue: first come, first served, and the youngest row is given up.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from pipeline.preprocess.sequence import Sequence
from pipeline.wire.request import Owner

_REMEMBERED = 4096  # shares; keys are fewer, but may be replaced again and again


@dataclass(slots=True, eq=False)
class Share:
    """Of one key in one class."""

    priority: int
    background: bool = False  # nobody waits for any of it
    weight: float = 1.0
    counter: float = 0.0  # tokens computed for it, by weight
    live: int = 0  # sequences that wait or have a row
    rows: int = 0
    waiting: deque[Sequence] = field(default_factory=deque)

    @property
    def order(self) -> tuple[int, float, float]:
        """The least one is next."""
        return self.priority, self.counter, self.rows / self.weight


class FairQueue:
    """Sequences that wait, and the shares of those that have a row."""

    def __init__(self) -> None:
        self._shares: dict[tuple[int, int], Share] = {}  # by class and key
        self._live: list[Share] = []
        self._left: dict[int, float] = {}  # by class: the counter of the share that was the last to end
        self._size = 0
        self.several = False  # there is more than one share: somebody has to be fair

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        """In no order across shares."""
        return chain.from_iterable(share.waiting for share in self._live)

    @property
    def awaited(self) -> bool:
        """Somebody waits for some of what waits or runs."""
        return not all(share.background for share in self._live)

    def share_of(self, sequence: Sequence) -> Share:
        return self._shares[_place(sequence.owner)]

    # ---- who comes and goes ---------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """A new one."""
        share = self._open(sequence.owner)
        if not share.waiting:
            self._lift(share)
        share.live += 1
        share.waiting.append(sequence)
        self._size += 1

    def put_back(self, sequence: Sequence) -> None:
        """One that has lost its row: before all of its share that never ran."""
        self.share_of(sequence).waiting.appendleft(sequence)
        self._size += 1

    def remove(self, sequence: Sequence) -> None:
        """It does not wait any more."""
        self.share_of(sequence).waiting.remove(sequence)
        self._size -= 1

    def end(self, sequence: Sequence) -> None:
        """It is over, and has neither row nor place here."""
        share = self.share_of(sequence)
        share.live -= 1
        if not share.live:
            self._live.remove(share)
            self._left[share.priority] = share.counter
            self.several = len(self._live) > 1

    def _open(self, owner: Owner) -> Share:
        place = _place(owner)
        share = self._shares.get(place)
        if share is None:
            share = self._shares[place] = Share(owner.priority, owner.background)
            self._forget_some()
        if not share.live:
            self._live.append(share)
            self.several = len(self._live) > 1
        share.weight = owner.weight  # it may have been changed
        return share

    def _lift(self, share: Share) -> None:
        others = [one for one in self._live if one is not share and one.priority == share.priority]
        counters = [one.counter for one in others if one.waiting] or [one.counter for one in others]
        share.counter = max(share.counter, min(counters, default=self._left.get(share.priority, 0.0)))

    def _forget_some(self) -> None:
        if len(self._shares) > _REMEMBERED:
            idle = [place for place, share in self._shares.items() if not share.live]
            for place in idle[: len(idle) // 2]:  # the first ones came first
                del self._shares[place]

    # ---- what they get --------------------------------------------------------------------------------------

    def take_row(self, sequence: Sequence) -> None:
        self.share_of(sequence).rows += 1

    def give_row(self, sequence: Sequence) -> None:
        self.share_of(sequence).rows -= 1

    def charge(self, sequence: Sequence, start: int, stop: int) -> None:
        """Its tokens between these positions are computed, some of them perhaps not for the first time."""
        share, begin = self.share_of(sequence), max(start, sequence.charged)
        if stop > begin:
            share.counter += (stop - begin) / share.weight
            sequence.charged = stop

    def before(self, owner: Owner) -> float:
        """How many of those that wait get a row before a new request of this owner, about."""
        own = self._shares.get(_place(owner))
        turn = (1 + (len(own.waiting) if own else 0)) / owner.weight
        equals = [share for share in self._live if share is not own and share.priority == owner.priority]
        first = sum(len(share.waiting) for share in self._live if share.priority < owner.priority)
        others = sum(min(len(share.waiting), turn * share.weight) for share in equals)
        return first + others + (len(own.waiting) if own else 0)

    def turns(self, prefilling: Iterable[Sequence], first: Sequence | None) -> Turns:
        """Who gets a chunk in the next step; `prefilling` have rows, and prompts that are partly computed. `first`,
        of those that wait, precedes all."""
        partly = defaultdict[Share, deque[Sequence]](deque)
        for sequence in prefilling:
            partly[self.share_of(sequence)].append(sequence)
        return Turns(self, self._live, partly, first)

    # ---- who gives up a row ---------------------------------------------------------------------------------

    def claim(
        self, held: Mapping[Sequence, int], total: int, wanted: Callable[[Sequence], int]
    ) -> tuple[Sequence, Sequence] | None:
        """Of rows, or blocks, of which there are `total`, so many are held, and none is free: one that waits and
        wants so many (0: it lacks none), and the holder that has to give up its own for it.

        A key may claim as many as its weight says, from a key that has more than that: so nothing goes to and fro. A
        class takes from those behind it."""
        sums = self._sums(held)
        if not self.several or not sums:
            return None
        giver = self._largest(sums)
        by_weight = self._by_weight(giver.priority, sums, total)
        gives = sums[giver] > giver.weight * by_weight
        for share in sorted((share for share in self._live if share.waiting), key=lambda share: share.order):
            first = share.waiting[0]
            if share is giver or share.priority > giver.priority or first.pending or not (want := wanted(first)):
                continue
            owed = gives and sums.get(share, 0) + want <= share.weight * by_weight
            if owed or share.priority < giver.priority:
                return first, _newest(one for one in held if self.share_of(one) is giver)
        return None

    def _by_weight(self, priority: int, held: Mapping[Share, int], total: int) -> float:
        """What a key of weight 1 in this class is owed of what the classes before it leave."""
        left = total - sum(number for share, number in held.items() if share.priority < priority)
        return left / sum(share.weight for share in self._live if share.priority == priority)

    def exceeds(self, sequence: Sequence, held: Mapping[Sequence, int], total: int) -> bool:
        """Its key holds more of these than it is owed: others need not wait until it has yet more."""
        sums, share = self._sums(held), self.share_of(sequence)
        return sums.get(share, 0) > share.weight * self._by_weight(share.priority, sums, total)

    def largest(self, held: Mapping[Sequence, int]) -> Sequence:
        """Of those that hold so much, at least one, the one that gives it up when there is no more: the newest of the
        last class, and of the share in it that has most."""
        largest = self._largest(self._sums(held))
        return _newest(sequence for sequence in held if self.share_of(sequence) is largest)

    def _largest(self, held: Mapping[Share, int]) -> Share:
        return max(held, key=lambda share: (share.priority, held[share] / share.weight))

    def _sums(self, held: Mapping[Sequence, int]) -> dict[Share, int]:
        sums: defaultdict[Share, int] = defaultdict(int)
        for sequence, number in held.items():
            sums[self.share_of(sequence)] += number
        return sums


class Turns:
    """Who gets a chunk in one step: of each share prompts that are partly computed, then those that wait; of all
    shares the one whose turn it is after each chunk."""

    def __init__(
        self,
        queue: FairQueue,
        shares: list[Share],
        prefilling: dict[Share, deque[Sequence]],
        first: Sequence | None,
    ) -> None:
        self._share_of, self._shares, self._partly = queue.share_of, shares, prefilling
        self._closed: set[Share] = set()
        self._full, self._first = False, first
        self._moved_too = True

    def next(self) -> Sequence | None:
        """None: there is nobody. One that has no row is named until it has one, or its share is closed."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        ready = [share for share in self._shares if self._goes_on(share) or self._lets_in(share)]
        if not ready:
            return None
        share = ready[0] if len(ready) == 1 else min(ready, key=lambda one: one.order)
        return self._partly[share].popleft() if self._goes_on(share) else self._next_of(share)

    def _goes_on(self, share: Share) -> bool:
        """It has a prompt that is partly computed, and was not preempted meanwhile."""
        partly = self._partly.get(share)
        while partly and partly[0].row < 0:
            partly.popleft()
        return bool(partly)

    def _lets_in(self, share: Share) -> bool:
        return not self._full and share not in self._closed and self._next_of(share) is not None

    def _next_of(self, share: Share) -> Sequence | None:
        if self._moved_too:
            return share.waiting[0] if share.waiting else None
        return next((sequence for sequence in share.waiting if not sequence.moved), None)

    def pass_over(self, sequence: Sequence) -> None:
        """The step has no room left for its kind: for those that come from another replica, whom others overtake, or
        for long prompts."""
        if sequence.moved:
            self._moved_too = False
        else:
            self.close(sequence)

    def close(self, sequence: Sequence) -> None:
        """It can't have a row in this step, and nobody overtakes it in its own share."""
        self._closed.add(self._share_of(sequence))

    def close_all(self) -> None:
        """What it lacks others would take: nobody gets a row any more in this step."""
        self._full = True


def _place(owner: Owner) -> tuple[int, int]:
    return owner.priority, owner.key


def _newest(sequences: Iterable[Sequence]) -> Sequence:
    return max(sequences, key=lambda sequence: sequence.arrival_ns)

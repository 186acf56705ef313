"""Which request has which row, from which step on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipeline.sampling.pending_admits import PendingAdmits
from pipeline.sampling.text_state import TextState
from pipeline.wire.request import Assign, Drop, RowChange

_NO_EPOCH = -1


class Rows:
    """`make_state` makes what is remembered of a request when it comes here first. `pending`: what the sampler has
    yet to be told of."""

    def __init__(self, max_rows: int, make_state: Callable[[Assign], TextState], pending: PendingAdmits) -> None:
        self._make_state, self._pending = make_state, pending
        self._epochs = [_NO_EPOCH] * max_rows
        self._states: list[TextState | None] = [None] * max_rows
        self._by_request: dict[int, TextState] = {}
        self._coming: deque[Assign] = deque()

    def __len__(self) -> int:
        """Requests that are remembered: in a row, preempted, or about to get one."""
        return len(self._by_request)

    def change(self, change: RowChange) -> None:
        """Take up a record of the rows ring: an admission counts from its step on, a cancellation at once."""
        if isinstance(change, Drop):
            self._drop(change.request)
        else:
            self._coming.append(change)

    def begin_step(self, step: int) -> None:
        """A row's sequence changes with the step that first serves the new one."""
        while self._coming and self._coming[0].from_step <= step:
            self._install(self._coming.popleft())

    def _install(self, assign: Assign) -> None:
        state = self._by_request.get(assign.request)
        if state is None:
            state = self._by_request[assign.request] = self._make_state(assign)
        self._pending.add(assign, state.sampling)
        self._states[assign.row] = state
        self._epochs[assign.row] = assign.epoch

    def _drop(self, request: int) -> None:
        """A cancelled request, wherever it is: waiting for its row, in it, or preempted."""
        self._coming = deque(assign for assign in self._coming if assign.request != request)
        state = self._by_request.pop(request, None)
        for row, there in enumerate(self._states):
            if there is state:
                self._vacate(row)

    def _vacate(self, row: int) -> None:
        self._states[row] = None
        self._epochs[row] = _NO_EPOCH
        self._pending.discard(row)

    def select(self, rows: list[int], epochs: list[int]) -> list[int]:
        """Rows whose sequence is still there; -1 in place of others. Few as they are, they are looked at one by one:
        numpy's code would have to be fetched from memory first."""
        now = self._epochs
        return [row if now[row] == epoch else -1 for row, epoch in zip(rows, epochs, strict=True)]

    def state(self, row: int) -> TextState:
        """Of a row that `select` gave."""
        state = self._states[row]
        assert state is not None
        return state

    def release(self, row: int) -> None:
        """Its request has ended."""
        del self._by_request[self.state(row).request]
        self._vacate(row)

"""Continuous batching with a token budget per step.

Decode rows come first, with one token each; the rest of the budget goes to chunks of prompts, in order of arrival,
and fairly where they are of several API keys (`FairQueue`). No prompt is padded to another's length, and no long
prompt delays decoding. Blocks are allocated as sequences grow; when they run out, the youngest sequence is preempted:
it gives its blocks back and is recomputed later.

The scheduler runs ahead of the device: a step may be planned while the tokens of the one before are still being
sampled, so a sequence is known to have a next token before the token itself is known (`Sequence.pending`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.drafts import DraftLimits, DraftRoom
from pipeline.preprocess.fair_queue import FairQueue, Turns
from pipeline.preprocess.plan import Chunk, DecodeColumns, Plan
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.sequence import Sequence
from pipeline.wire.step import RowKind

_LONG_PART = 4  # long prompts get at most a quarter of a step's budget while there are other keys' requests
_BACKGROUND_PART = 4  # so much of a step is for prompts that nobody waits for, where somebody waits for others


@dataclass(slots=True)
class SchedulerStats:
    """Counters since the start."""

    admitted: int = 0
    preemptions: int = 0
    cancelled: int = 0


class Scheduler:
    """Decides what each step computes: `plan`, then `commit` once the plan has been written into a slot.

    `ring_slots` is the number of slots of the step ring: block tables are remembered per slot. `logit_rows`: so many
    sequences with a row may need logits. `admission_bytes`: so long may the records be of the sequences that get a
    row in one step, unless there is only one. `samples`: so many positions of a step may be sampled or scored; 0: as
    many as there are rows. `fixed_tokens`: so many tokens has a step with a deterministic row at most, and as many
    sampled positions as there are rows. Sequences that have got a row are in `admissions`; the caller takes them from
    there before it publishes the step.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_rows: int,
        token_budget: int,
        block_table_width: int,
        ring_slots: int,
        logit_rows: int = 0,
        samples: int = 0,
        admission_bytes: int = 1 << 30,
        quarantine: Quarantine | None = None,
        drafts: DraftLimits | None = None,
        fixed_tokens: int = 0,
    ) -> None:
        self.blocks = blocks
        self.stats = SchedulerStats()
        self.waiting = FairQueue()
        self.prefilling: list[Sequence] = []
        self.admissions: list[Sequence] = []
        self._columns = DecodeColumns(max_rows, block_table_width, ring_slots, blocks.block_size)
        self._drafts = drafts or DraftLimits()
        self._wishes: dict[Sequence, int] = {}  # drafts that rows are likely to have
        self._draining: list[Sequence] = []  # their last step is being computed
        self._budget = token_budget
        self._samples = self._drafted = samples or max_rows
        self._fixed_tokens = fixed_tokens
        self._deterministic = 0  # so many rows are
        self._late: Sequence | None = None  # it is, and came behind a chunk of another shape
        self._free_rows = list(range(max_rows - 1, -1, -1))
        self._epochs = [0] * max_rows
        self._by_row_epoch: dict[tuple[int, int], Sequence] = {}  # row and epoch → sequence with steps under way
        self._by_request: dict[int, Sequence] = {}
        self._free_logit_rows = logit_rows or max_rows
        self._admission_bytes = admission_bytes
        self._quarantine = quarantine or Quarantine()
        self._suspects: list[Sequence] = []  # the first of them is alone in the batch

    # ---- state ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Sequences that have a row."""
        return len(self._columns) + len(self.prefilling) + len(self._draining)

    @property
    def has_work(self) -> bool:
        """Something could be scheduled, now or after a result has arrived."""
        return bool(self.waiting or self.prefilling or len(self._columns))

    @property
    def quarantined(self) -> bool:
        """There are suspects: only one step at a time may be under way, so that a failure has one possible cause."""
        return bool(self._suspects)

    @property
    def alone(self) -> Sequence | None:
        """The suspect that is alone in the batch."""
        return self._suspects[0] if self._suspects and self._suspects[0].row >= 0 else None

    @property
    def aboard(self) -> list[Sequence]:
        """Sequences that have a row, or steps under way."""
        return [sequence for sequence in self._by_request.values() if sequence.row >= 0 or sequence.pending]

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence. The caller has checked that it fits."""
        self._by_request[sequence.request] = sequence
        self.waiting.add(sequence)
        if self._quarantine.is_suspect(sequence.request):
            self._suspects.append(sequence)

    def cancel(self, request: int) -> Sequence | None:
        """Forget a request; its row and blocks are free for the next step. None: it is not here (any more)."""
        sequence = self._by_request.get(request)
        if sequence is None:
            return None
        self.stats.cancelled += 1
        self._finish(sequence)
        return sequence

    def limit_step(self, tokens: int, samples: int, drafted: int) -> None:
        """Steps have at most so many new tokens and sampled positions from now on, those without prompts so many that
        are both; every row can decode all the same."""
        self._budget, self._samples, self._drafted = tokens, samples, drafted

    # ---- a step ---------------------------------------------------------------------------------------------

    @property
    def _step_tokens(self) -> int:
        """Of the next step, at most."""
        return self._fixed_tokens if self._deterministic else self._budget

    @property
    def _step_samples(self) -> int:
        return len(self._epochs) if self._deterministic else self._samples

    def plan(self) -> Plan | None:
        """The next step; None when there is nothing to compute now."""
        self._isolate()
        first = self._claim_row() or self._come_late()
        self._provide_blocks()
        chunks = self._choose_chunks(self._step_tokens - len(self._columns), first)
        self._columns.carry_none()
        if self._wishes:
            self._choose_drafts(chunks)
        if not chunks and not len(self._columns):
            return None
        return Plan(self._columns, chunks, self._fixed_tokens if self._deterministic else 0)

    def commit(self, plan: Plan) -> None:
        """The step is on its way. Prompts that are complete decode from now on; full blocks can be shared by the next
        step."""
        self._columns.advance()
        for chunk in plan.chunks:
            sequence, ends = chunk.sequence, chunk.ends_prompt
            if sequence.scores_next:
                sequence.scored = min(chunk.stop, sequence.to_score)
            sequence.computed += chunk.count
            self._seal(sequence)
            if ends:
                sequence.moved = False
                sequence.schedule()
                self.prefilling.remove(sequence)
                self._columns.add(sequence)
        for sequence in [s for s in self._columns.sequences if s.complete]:
            self._columns.remove(sequence)
            self._draining.append(sequence)

    def _isolate(self) -> None:
        """While there are suspects, the first of them has the batch for itself; a cleared one joins the others."""
        while self._suspects and self._quarantine.clears(self._suspects[0]):
            self._quarantine.acquit(self._suspects.pop(0).request)
        if not self._suspects:
            return
        first = self._suspects[0]
        others = [s for s in (*self._columns.sequences, *self.prefilling) if s is not first]
        for sequence in sorted(others, key=lambda s: -s.arrival_ns):
            self._preempt(sequence)
        if first.row < 0:
            self.waiting.remove(first)
            self.waiting.put_back(first)

    def _claim_row(self) -> Sequence | None:
        """At most one row changes hands in a step: for a newcomer that lacks one, or blocks, that its key is owed."""
        queue, blocks = self.waiting, self.blocks
        if not queue.several or not queue or self._suspects:
            return None
        claim = None
        if not self._free_rows:  # a row alone is of no use to one that lacks blocks
            rows = dict.fromkeys(self._preemptible, 1)
            claim = queue.claim(rows, len(self._epochs), lambda sequence: not self._missing_blocks(sequence))
        if claim is None:
            claim = queue.claim(self._held_blocks, blocks.num_blocks - 1, self._missing_blocks)
        if claim is None:
            return None
        newcomer, holder = claim
        if newcomer.wants.logits and not self._free_logit_rows and not holder.wants.logits:
            return None  # the row would be of no use to it
        self._preempt(holder)
        return newcomer

    def _come_late(self) -> Sequence | None:
        """One that was too late in the last step. Those before it may have a chunk in every step; it comes before
        them once, if it has what it needs."""
        late, self._late = self._late, None
        if late is None or late.finished or late.row >= 0 or not self._free_rows or self._missing_blocks(late):
            return None
        return late

    def _missing_blocks(self, sequence: Sequence) -> int:
        """That a newcomer would hold, if there are not as many; 0: there may be."""
        wanted, cached = -(-(sequence.known + 1) // self.blocks.block_size), sequence.cached_blocks
        if sequence.releases < 0 and sequence.digests and self.blocks.is_cached(sequence.digests[0]):
            return 0  # how many are cached is not known yet
        return wanted if wanted - cached > self.blocks.free else 0

    def _may_enter(self, sequence: Sequence) -> bool:
        if sequence.pending or (sequence.wants.logits and not self._free_logit_rows):
            return False
        return not self._suspects or sequence is self._suspects[0]

    def _provide_blocks(self) -> None:
        """Every decode row whose next token may lie behind its blocks gets one; if need be, the youngest are
        preempted."""
        columns, size = self._columns, self.blocks.block_size
        needing = [columns.sequences[b] for b in columns.lacking_blocks()]
        for sequence in sorted(needing, key=lambda s: s.arrival_ns):
            while sequence.row >= 0 and len(sequence.blocks) * size <= sequence.reach and self._take_block(sequence):
                columns.extend(columns.sequences.index(sequence), sequence.blocks[-1])

    def _take_block(self, sequence: Sequence) -> bool:
        """One more block for this sequence; False if it was itself preempted for it."""
        while (block := self.blocks.allocate()) is None:
            victim = self.waiting.largest(self._held_blocks)
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks.append(block)
        return True

    def _choose_drafts(self, chunks: tuple[Chunk, ...]) -> None:
        """What the step has left, shared by the rows that wish for it."""
        columns, wishes = self._columns, self._wishes
        if not (per_row := self._drafts.per_row(len(columns))):
            return
        rows = (*columns.sequences, *(chunk.sequence for chunk in chunks))
        room = DraftRoom(
            self._drafts,
            self._step_tokens,
            self._step_samples if chunks or self._deterministic else self._drafted,
            decoding=len(columns),
            prompts=sum(chunk.count if chunk.kind is RowKind.SCORE else 1 for chunk in chunks),
            tokens=len(columns) + sum(chunk.count for chunk in chunks),
            logit_rows=sum(sequence.wants.logits for sequence in rows),
        )
        asking = [one for one in columns.sequences if one in wishes and not one.deterministic]
        for place, sequence in enumerate(asking):
            wish, logits = min(wishes[sequence], per_row), sequence.wants.logits
            offered = room.offer(wish, len(asking) - place, logits=logits)
            if drafts := self._hold_blocks(sequence, offered):
                room.take(drafts, logits=logits)
                columns.carry(sequence, drafts)

    def _hold_blocks(self, sequence: Sequence, drafts: int) -> int:
        """For so many drafts, or for as many as free blocks hold: nobody is preempted for a guess."""
        columns, size = self._columns, self.blocks.block_size
        wanted = max(0, min(drafts, sequence.limit - 2 - sequence.reach))  # behind the last token nothing is drafted
        while len(sequence.blocks) * size <= sequence.reach + wanted:
            if (block := self.blocks.allocate()) is None:
                return len(sequence.blocks) * size - 1 - sequence.reach
            sequence.blocks.append(block)
            columns.extend(columns.sequences.index(sequence), block)
        return wanted

    @property
    def _preemptible(self) -> tuple[Sequence, ...]:
        return *self._columns.sequences, *self.prefilling

    @property
    def _held_blocks(self) -> dict[Sequence, int]:
        return {sequence: len(sequence.blocks) for sequence in self._preemptible}

    def _preempt(self, sequence: Sequence) -> None:
        """Give up row and blocks, and wait again, before all of its key that never ran."""
        self.stats.preemptions += 1
        sequence.preemptions += 1
        self._leave(sequence)
        sequence.computed = 0
        self.waiting.put_back(sequence)

    def _choose_chunks(self, budget: int, first: Sequence | None) -> tuple[Chunk, ...]:
        """Of each key prompts that are partly computed first, then new ones while rows, blocks and budget last."""
        chunks: list[Chunk] = []
        if not self.prefilling and not (self._free_rows and self.waiting):
            return ()
        turns, room = self.waiting.turns(self.prefilling, first), self._admission_bytes
        while budget > 0 and (sequence := turns.next()) is not None:
            most = self._longest_chunk(sequence, budget, chunks)
            if sequence.row < 0:
                if not most:
                    turns.pass_over(sequence)
                    continue
                too_late = bool(chunks) and sequence.deterministic and not self._deterministic
                if not (size := self._enter(sequence, turns, room, too_late=too_late)):
                    continue
                room -= size
                budget = min(budget, self._step_tokens - len(self._columns))  # the first that is deterministic
                most = min(most, budget)
            budget = self._choose_chunk(sequence, budget, most, chunks)
        return tuple(chunk for chunk in chunks if chunk.sequence.row >= 0)

    def _enter(self, sequence: Sequence, turns: Turns, room: int, *, too_late: bool) -> int:
        """Give a waiting sequence a row; returns the size of its record, at most `room` unless it is the only one. 0:
        it gets none in this step, and neither do those that must not overtake it. `too_late`: the step has another
        shape than it must have; then it is the first in the next one."""
        size = sequence.record_bytes
        if not self._may_enter(sequence):
            turns.close(sequence)
        elif not self._free_rows or (self.admissions and size > room):
            turns.close_all()
        elif too_late:
            turns.close(sequence)
            self._late = self._late or sequence
        elif self._admit(sequence):
            return size
        elif self.waiting.several and self.waiting.exceeds(sequence, self._held_blocks, self.blocks.num_blocks - 1):
            turns.close(sequence)
        else:
            turns.close_all()
        return 0

    def _choose_chunk(self, sequence: Sequence, budget: int, most: int, chunks: list[Chunk]) -> int:
        """Schedule at most so many of the sequence's known tokens. Returns what is left of the step's budget."""
        if sequence.scoring:
            most = min(most, self._most_to_score(sequence, chunks))
        count = sequence.next_chunk(most)
        if count == 1 < sequence.left_of_kind and chunks:  # a token alone: it waits for a step with more room
            return budget if sequence.moved else 0
        while len(sequence.blocks) * self.blocks.block_size < sequence.computed + count:
            block = self.blocks.allocate()
            if block is None:  # the chunk is cut to its blocks; decode rows will end and give theirs back
                count = len(sequence.blocks) * self.blocks.block_size - sequence.computed
                break
            sequence.blocks.append(block)
        if count <= 0:
            if not chunks and not len(self._columns) and not self._draining:
                self._preempt(self.waiting.largest(self._held_blocks))  # prompts hold all blocks: else a deadlock
            return budget
        chunks.append(Chunk(sequence, count))
        self.waiting.charge(sequence, sequence.computed, sequence.computed + count)
        return budget - count

    def _longest_chunk(self, sequence: Sequence, budget: int, chunks: list[Chunk]) -> int:
        """Of this prompt. Prompts that need more than an ordinary step share a part of each, where other keys'
        requests would wait for them; so do those that come from another replica, where somebody decodes, and those
        that nobody waits for, where somebody waits for others."""
        if sequence.moved and len(self._columns):
            taken = sum(chunk.count for chunk in chunks if chunk.sequence.moved)
            budget = max(0, min(budget, self._step_tokens // 2 - taken))
        if not self.waiting.several:
            return budget
        if sequence.owner.background and self.waiting.awaited:
            taken = sum(chunk.count for chunk in chunks if chunk.sequence.owner.background)
            budget = max(0, min(budget, self._step_tokens // _BACKGROUND_PART - taken))
        if sequence.known <= self._budget:
            return budget
        taken = sum(chunk.count for chunk in chunks if chunk.sequence.known > self._budget)
        room = max(2, self._step_tokens // _LONG_PART) - taken
        return min(budget, room) if room > 1 else 0

    def _most_to_score(self, sequence: Sequence, chunks: list[Chunk]) -> int:
        """Tokens of the next chunk of a prompt that is scored. Each row has a sampled position of its own, so that
        none waits for one; scores get those that no row can need in this step."""
        if not sequence.scores_next:
            return sequence.scored - sequence.computed
        spare = self._step_samples - len(self._columns) - len(self.prefilling)
        spare -= min(len(self.waiting), len(self._free_rows))
        spare -= sum(chunk.count - 1 for chunk in chunks if chunk.kind is RowKind.SCORE)
        ends = sequence.to_score + (sequence.known == sequence.prompt)
        return min(1 + max(spare, 0), ends - sequence.computed)

    def _admit(self, sequence: Sequence) -> bool:
        """Give a waiting sequence a row and the cached blocks of its prompt, if blocks for the rest are free."""
        size = self.blocks.block_size
        self.blocks.name(sequence.tokens[: sequence.known], sequence.digests, sequence.root)
        if not self._has_changed(sequence):
            return False
        blocks = self.blocks.match(sequence.digests, sequence.reusable // size)
        if -(-(sequence.known + 1) // size) - len(blocks) > self.blocks.free:
            self.blocks.release(blocks)
            sequence.cached_blocks, sequence.releases = len(blocks), self.blocks.releases
            return False
        sequence.blocks, sequence.sealed = blocks, len(blocks)
        sequence.computed = len(blocks) * size
        self.blocks.stats.queries += sequence.known
        self.blocks.stats.hits += sequence.computed
        if sequence.fresh:
            sequence.cached = sequence.computed
        self.waiting.remove(sequence)
        self.waiting.take_row(sequence)
        sequence.row = self._free_rows.pop()
        self._free_logit_rows -= sequence.wants.logits
        self._deterministic += sequence.deterministic
        self._epochs[sequence.row] += 1
        sequence.epoch = self._epochs[sequence.row]
        self._by_row_epoch[sequence.row, sequence.epoch] = sequence
        self.prefilling.append(sequence)
        self.admissions.append(sequence)
        self.stats.admitted += 1
        return True

    def _has_changed(self, sequence: Sequence) -> bool:
        """Whether there may be blocks for it that there were not at the last attempt: the first in the queue is tried
        in every step, and a long prompt has thousands of blocks to look up."""
        blocks, next_block = self.blocks, sequence.cached_blocks
        if blocks.releases != sequence.releases:
            return True
        more = next_block < min(len(sequence.digests), sequence.reusable // blocks.block_size)
        return more and blocks.is_cached(sequence.digests[next_block])

    def _seal(self, sequence: Sequence) -> None:
        """Add the blocks whose tokens are all known and computed to the prefix cache."""
        size, sealed = self.blocks.block_size, sequence.sealed
        full = min(sequence.known, sequence.computed) // size
        self.blocks.name(sequence.tokens[: full * size], sequence.digests, sequence.root)
        for block, digest in zip(sequence.blocks[sealed:full], sequence.digests[sealed:full], strict=False):
            self.blocks.seal(block, digest)
        sequence.sealed = full

    # ---- results --------------------------------------------------------------------------------------------

    def on_tokens(self, row: int, epoch: int, tokens: list[int], *, finished: bool, wish: int = 0) -> None:
        """A step has brought these. Tokens of sequences that are gone are ignored. `wish`: drafts that the row would
        like to carry."""
        sequence = self._by_row_epoch.get((row, epoch))
        if sequence is None or sequence.finished:
            return
        drafts, more = sequence.append(tokens), len(tokens) - 1
        if self.waiting.several:
            self.waiting.charge(sequence, sequence.known - len(tokens), sequence.known)
        if finished:
            self._finish(sequence)
            return
        if sequence.row == row and sequence.epoch == epoch:
            sequence.computed += more
            if (drafts or more) and sequence in self._columns.sequences:
                self._columns.settle(sequence, drafts, more)
            if sequence.known % self.blocks.block_size <= more:
                self._seal(sequence)
            self._note_wish(sequence, wish)
        elif not sequence.pending:
            del self._by_row_epoch[row, epoch]  # it was preempted, and nothing of that epoch is under way any more

    def on_no_token(self, row: int, epoch: int) -> None:
        """A sequence has sat out a step: its last position is computed again."""
        sequence = self._by_row_epoch.get((row, epoch))
        if sequence is None or sequence.finished:
            return
        drafts = sequence.sit_out()
        if sequence.row == row and sequence.epoch == epoch:
            sequence.computed -= 1
            if sequence in self._draining:
                self._draining.remove(sequence)
                self._columns.add(sequence)
            else:
                self._columns.settle(sequence, drafts, -1)
        elif not sequence.pending:
            del self._by_row_epoch[row, epoch]

    def _note_wish(self, sequence: Sequence, wish: int) -> None:
        if wish:
            self._wishes[sequence] = wish
        elif self._wishes:
            self._wishes.pop(sequence, None)

    def _finish(self, sequence: Sequence) -> None:
        sequence.finished = True
        del self._by_request[sequence.request]
        if sequence in self._suspects:
            self._suspects.remove(sequence)
            self._quarantine.acquit(sequence.request)
        if sequence.row >= 0:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)
        self.waiting.end(sequence)
        for key in [key for key, held in self._by_row_epoch.items() if held is sequence]:
            del self._by_row_epoch[key]

    def _leave(self, sequence: Sequence) -> None:
        """Take the sequence out of the batch. A step under way may still write to its blocks, which does no harm:
        steps run in order, so the next owner of a block writes it later, and full blocks are never written again."""
        if sequence in self._columns.sequences:
            self._columns.remove(sequence)
        elif sequence in self.prefilling:
            self.prefilling.remove(sequence)
        else:
            self._draining.remove(sequence)
        self._wishes.pop(sequence, None)
        if not sequence.pending:
            self._by_row_epoch.pop((sequence.row, sequence.epoch), None)
        self._free_rows.append(sequence.row)
        self.waiting.give_row(sequence)
        self._free_logit_rows += sequence.wants.logits
        self._deterministic -= sequence.deterministic
        self.blocks.release(sequence.blocks)
        sequence.row = -1
        sequence.blocks, sequence.sealed, sequence.releases = [], 0, -1

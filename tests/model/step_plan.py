"""A long random run of mixed steps over known sequences, as the scheduler of a server would issue it."""

from dataclasses import dataclass, field

import numpy as np

from model.runner import Bucket, RunnerFacts, StepInputs

GARBAGE_BLOCK = 1_000_000  # stands where no block may be read


@dataclass
class Sequence:
    """One text, fed to the model token by token whatever the model says."""

    number: int
    tokens: np.ndarray
    prompt: int  # tokens that may come in chunks
    first_step: int
    done: int = 0
    blocks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedStep:
    inputs: StepInputs
    rows: tuple[tuple[int, int], ...]  # sequence and position of each row's last new token


def plan_steps(tokens: list[np.ndarray], facts: RunnerFacts, seed: int, largest_chunk: int = 20) -> list[PlannedStep]:
    """Steps until every sequence is through: prompts split at random, rows joining, leaving and pausing,
    blocks scattered and reused, everything padded to the runner's buckets with rubbish in the padding."""
    generator = np.random.default_rng(seed)
    free = list(generator.permutation(facts.num_blocks))
    sequences = [
        Sequence(number, ids, int(generator.integers(1, len(ids) + 1)) // 2 + 1, int(generator.integers(0, 30)))
        for number, ids in enumerate(tokens)
    ]
    steps: list[PlannedStep] = []
    step = 0
    while any(sequence.done < len(sequence.tokens) for sequence in sequences):
        chosen = _choose(sequences, step, facts, generator, largest_chunk)
        step += 1
        if chosen:
            steps.append(_build(chosen, facts, free, generator))
    return steps


def _choose(sequences, step, facts, generator, largest_chunk):
    """Who brings how many tokens."""
    rows, tokens = max((bucket.rows, bucket.tokens) for bucket in facts.buckets)
    chosen = []
    for index in generator.permutation(len(sequences)):
        sequence = sequences[index]
        left = len(sequence.tokens) - sequence.done
        if step < sequence.first_step or not left or len(chosen) == rows or generator.random() < 0.1:
            continue
        wanted = 1
        if sequence.done < sequence.prompt:
            wanted = int(generator.integers(1, min(largest_chunk, sequence.prompt - sequence.done) + 1))
        wanted = min(wanted, tokens - sum(count for _, count in chosen))
        if wanted:
            chosen.append((sequence, wanted))
    return chosen


def _build(chosen, facts, free, generator) -> PlannedStep:
    bucket = _smallest(facts.buckets, sum(count for _, count in chosen), len(chosen))
    inputs = _rubbish(bucket, facts, generator)
    at = 0
    rows = []
    for row, (sequence, count) in enumerate(chosen):
        start, end = sequence.done, sequence.done + count
        while len(sequence.blocks) * facts.block_size < end:
            sequence.blocks.append(free.pop())
        positions = np.arange(start, end)
        blocks = np.array(sequence.blocks, np.int32)
        inputs.input_ids[at : at + count] = sequence.tokens[start:end]
        inputs.positions[at : at + count] = positions
        inputs.slot_mapping[at : at + count] = (
            blocks[positions // facts.block_size] * facts.block_size + positions % facts.block_size
        )
        inputs.valid_length[row], inputs.q_seq_lens[row], inputs.adapter[row] = end, count, 0
        inputs.block_tables[row, : len(blocks)] = blocks
        at += count
        inputs.sample_index[row] = at - 1
        sequence.done = end
        rows.append((sequence.number, end - 1))
        if end == len(sequence.tokens):
            free.extend(sequence.blocks)
            generator.shuffle(free)
    return PlannedStep(inputs, tuple(rows))


def _smallest(buckets: tuple[Bucket, ...], tokens: int, rows: int) -> Bucket:
    return min(
        (bucket for bucket in buckets if bucket.tokens >= tokens and bucket.rows >= rows),
        key=lambda bucket: (bucket.tokens, bucket.rows),
    )


def _rubbish(bucket: Bucket, facts: RunnerFacts, generator) -> StepInputs:
    """What may stand in padding: any valid id, position and index; slot -1; no new tokens; any block."""

    def some(size: int, below: int) -> np.ndarray:
        return generator.integers(0, below, size).astype(np.int32)

    return StepInputs(
        input_ids=some(bucket.tokens, facts.vocab_size),
        positions=some(bucket.tokens, facts.max_length),
        slot_mapping=np.full(bucket.tokens, -1, np.int32),
        valid_length=some(bucket.rows, facts.max_length),
        q_seq_lens=np.zeros(bucket.rows, np.int32),
        sample_index=some(bucket.samples, bucket.tokens),
        adapter=np.full(bucket.rows, 7, np.int32),
        block_tables=np.full((bucket.rows, facts.block_table_width), GARBAGE_BLOCK, np.int32),
    )

"""What the tests do with a loaded runner. Everything here runs in a process of its own (see conftest.py):
MindSpore is slow to import, keeps threads, and warns, and none of that should reach the other tests."""

import mmap
from pathlib import Path

import numpy as np
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.runner import Bucket, StepInputs

from tests.model.step_plan import plan_steps

BUCKETS = (Bucket(1, 1), Bucket(4, 4), Bucket(16, 4), Bucket(48, 4))


def settings(directory, **changes) -> MindFormersSettings:
    chosen = {
        "config_path": Path(directory),
        "checkpoint_path": Path(directory),
        "num_blocks": 40,
        "max_rows": 4,
        "token_budget": 48,
        "buckets": BUCKETS,
        **changes,
    }
    return MindFormersSettings(**chosen)


def loaded(directory, **changes) -> MindFormersRunner:
    runner = MindFormersRunner(settings(directory, **changes))
    runner.load()
    return runner


def mixed_run(directory, tokens, seed, **changes):
    """Every row of logits of a long mixed run, with the sequence and position it belongs to."""
    runner = loaded(directory, **changes)
    results = []
    steps = plan_steps(tokens, runner.facts, seed)
    for step in steps:
        logits = np.full((step.inputs.rows, runner.facts.vocab_size), np.nan, np.float32)
        runner.step(runner.bind(step.inputs), logits)
        results += [(*where, logits[row]) for row, where in enumerate(step.rows)]
    runner.close()
    return len(steps), results


def uncached_logits(directory, tokens):
    """Logits of whole sequences from mindformers' own model without a cache, and with nothing replaced."""
    from model.mindformers_runner.quiet import import_mindformers

    import_mindformers()
    from mindformers import LlamaForCausalLM
    from mindspore import Tensor
    from model.mindformers_runner.network import llama_config, use_device
    from model.mindformers_runner.weights import load_weights

    runner = MindFormersRunner(settings(directory))
    use_device(runner.settings)
    config = llama_config(runner.architecture, runner.settings, runner.facts.max_length)
    config.use_past = config.chunk_prefill = False
    config.seq_length = runner.facts.max_length
    config.pad_token_id = -1  # without a cache mindformers hides this token from attention; the texts have 0
    network = LlamaForCausalLM(config)
    network.set_train(False)
    load_weights(network, runner._weights, np.float32, None)
    results = []
    for ids in tokens:
        padded = np.full((1, config.seq_length), 1, np.int32)
        padded[0, : len(ids)] = ids
        results.append(network(Tensor(padded))[0].asnumpy()[0, : len(ids)])
    return results


def one_token_inputs(facts, memory=None) -> StepInputs:
    """Arrays of a step of one token; with ``memory``, views of it one behind the other."""
    sizes = {name: (1,) for name in StepInputs.__dataclass_fields__ if name != "block_tables"}
    shapes = {**sizes, "block_tables": (1, facts.block_table_width)}
    arrays, offset = {}, 0
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        if memory is None:
            arrays[name] = np.zeros(shape, np.int32)
        else:
            arrays[name] = np.frombuffer(memory, np.int32, count, offset).reshape(shape)
            offset += -(-count * 4 // 64) * 64
    inputs = StepInputs(**arrays)
    inputs.valid_length[0] = inputs.q_seq_lens[0] = 1
    return inputs


def changes_are_seen(directory):
    """Logits after writing other token ids into the arrays of one binding, with private and shared memory."""
    runner = loaded(directory)
    with mmap.mmap(-1, 4096) as memory:
        results = {}
        for kind, inputs in (
            ("private", one_token_inputs(runner.facts)),
            ("shared", one_token_inputs(runner.facts, memory)),
        ):
            binding = runner.bind(inputs)
            for token in (3, 77, 3):
                inputs.input_ids[0] = token
                logits = np.empty((1, runner.facts.vocab_size), np.float32)
                runner.step(binding, logits)
                results.setdefault(kind, []).append(logits[0])
        runner.close()
        del inputs, binding
    return results

"""What the tests do with a loaded runner. Everything here runs in a process of its own (see conftest.py):
MindSpore is slow to import, keeps threads, and warns, and none of that should reach the other tests."""

import gc
import mmap
from pathlib import Path

import numpy as np

import ipc
from model.errors import ModelError
from model.families import canonical_weights
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.mindformers_runner.configuration import read_model
from model.mindformers_runner.names import network_weights
from model.runner import Best, Bucket, StepInputs
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


def mixed_run(directory, tokens, seed, *, warm_up=False, **changes):
    """Every row of logits of a long mixed run, with the sequence and position it belongs to."""
    runner = loaded(directory, **changes)
    if warm_up:
        runner.warm_up()
    results = []
    steps = plan_steps(tokens, runner.facts, seed)
    for step in steps:
        logits = np.full((step.inputs.bucket.samples, runner.facts.vocab_size), np.nan, np.float32)
        runner.step(runner.bind(step.inputs), logits)
        results += [(*where, logits[row]) for row, where in enumerate(step.rows)]
    runner.close()
    return len(steps), results


def refusal(directory, **changes):
    """Why it does not become ready."""
    runner = MindFormersRunner(settings(directory, **changes))
    try:
        runner.load()
        runner.warm_up()
    except ModelError as error:
        return str(error)
    finally:
        runner.close()
    return None


def uncached_logits(directory, tokens):
    """Logits of whole sequences from mindformers' own model without a cache, and with nothing replaced but the rotary
    tables, as on Ascend."""
    from model.mindspore_common.import_quietly import import_mindformers

    import_mindformers()
    from mindformers import LlamaForCausalLM
    from mindspore import Tensor

    from model.mindformers_runner.llama import llama_config, set_rotary_tables
    from model.mindformers_runner.weights import load_weights
    from model.mindspore_common.device import use_device

    runner = MindFormersRunner(settings(directory))
    use_device(runner.settings)
    length = runner.facts.max_length
    config = llama_config(runner.spec, runner.settings, length, "float32", fused=False)
    config.use_past = config.chunk_prefill = False
    config.seq_length = length
    config.pad_token_id = -1  # without a cache mindformers hides this token from attention; the texts have 0
    network = LlamaForCausalLM(config)
    network.set_train(False)
    set_rotary_tables(network, runner.spec, length)
    load_weights(network, runner._weights, "float32", None)
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
    memory = mmap.mmap(-1, 4096)
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
    return results


def greedy_and_errors(directory):
    """Greedy choice against logits, a NaN row, corrupt steps, and that the runner goes on after them."""
    runner = loaded(directory)
    inputs = one_token_inputs(runner.facts)
    binding = runner.bind(inputs)
    logits, chosen = np.empty((1, runner.facts.vocab_size), np.float32), np.empty((2, 1, 1), np.int32)
    logit, log_sum_exp = np.empty((1, 1), np.float32), np.empty(1)
    runner.step(binding, logits)
    step_greedy(runner, binding, Best(chosen[0]))
    step_greedy(runner, binding, Best(chosen[1], logit, log_sum_exp))
    messages = []
    for name, value in (
        ("input_ids", -1),
        ("input_ids", runner.facts.vocab_size),
        ("positions", runner.facts.max_length),
        ("sample_index", 1),
        ("adapter", 1),
        ("slot_mapping", runner.facts.num_blocks * runner.facts.block_size),
        ("block_tables", runner.facts.num_blocks),
        ("valid_length", 0),
        ("q_seq_lens", 2),
    ):
        array = getattr(inputs, name).reshape(-1)
        before, array[0] = array[0], value
        try:
            runner.step(binding, logits)
        except ModelError as error:
            messages.append(f"{type(error).__name__}: {error}")
        array[0] = before
    after = np.empty_like(logits)
    runner.step(binding, after)
    runner.abandon()
    try:
        runner.fetch(np.zeros(1, np.int32), logits)
    except ModelError as error:
        messages.append(f"{type(error).__name__}: {error}")
    poisoned = _greedy_after_poisoning(runner, binding)
    runner.close()
    runner.close()
    try:
        runner.step(binding, logits)
    except ModelError as error:
        messages.append(f"{type(error).__name__}: {error}")
    return {
        "chosen": chosen.reshape(-1).tolist(),
        "logprob": float(logit[0, 0] - log_sum_exp[0]),
        "logits": logits[0],
        "after": after[0],
        "errors": messages,
        "nan": poisoned,
    }


def _greedy_after_poisoning(runner, binding) -> int:
    from mindspore import Tensor

    weight = {p.name: p for p in runner._network.get_parameters()}["model.norm_out.weight"]
    weight.set_data(Tensor(np.full(weight.shape, np.nan, np.float32)))
    chosen = np.zeros((1, 1), np.int32)
    step_greedy(runner, binding, Best(chosen, log_sum_exp=np.zeros(1)))
    return int(chosen[0, 0])


def step_greedy(runner, binding, best):
    runner.launch(binding)
    runner.fetch_best(best)


def compilations(directory):
    """Log lines and progress of a warm-up, then of steps that are and are not warmed up."""
    import logging

    lines, progress = [], []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("model.mindspore_common.runner").addHandler(handler)
    runner = MindFormersRunner(settings(directory))
    runner.load(lambda *event: progress.append(event))
    logits = np.empty((1, runner.facts.vocab_size), np.float32)
    runner.step(runner.bind(one_token_inputs(runner.facts)), logits)
    on_demand = list(lines)
    runner.warm_up(lambda *event: progress.append(event))
    lines.clear()
    for step in plan_steps([np.arange(100) % 7], runner.facts, 1):
        runner.step(
            runner.bind(step.inputs), np.empty((step.inputs.bucket.samples, runner.facts.vocab_size), np.float32)
        )
    runner.close()
    return on_demand, progress, list(lines)


def as_on_ascend(directory, **changes) -> MindFormersRunner:
    """One graph with dynamic shapes, a tensor per step, logits that stay on the device; but with a cell for CPU."""
    runner = loaded(directory, attention="plain", **changes)  # MindSpore's custom operators want static shapes
    from model.mindformers_runner import llama  # which imports mindformers: not before it has been made quiet

    class OneBased(llama.CpuLlama):
        def pre_gather_func(self, pre_gather, output, batch_valid_length, gather_index=None):
            return super().pre_gather_func(pre_gather, output, batch_valid_length, gather_index - 1)

    runner._network.__class__ = OneBased
    runner._execution = runner._dynamic_execution(runner._network)
    return runner


def dynamic_run(directory, tokens, seed):
    """A mixed run as on Ascend."""
    runner = as_on_ascend(directory)
    results = []
    for step in plan_steps(tokens, runner.facts, seed)[:12]:
        rows = step.inputs.bucket.samples
        logits, best = np.empty((rows, runner.facts.vocab_size), np.float32), np.empty((rows, 1), np.int32)
        runner.step(runner.bind(step.inputs), logits)
        runner.fetch_best(Best(best))
        results += [(*where, logits[row], int(best[row, 0])) for row, where in enumerate(step.rows)]
    runner.close()
    return results


def logits_of_one_token(directory, **changes):
    """Logits of token 0, and the names and sizes of the compile cache afterwards."""
    runner = loaded(directory, **changes)
    logits = np.empty((1, runner.facts.vocab_size), np.float32)
    runner.step(runner.bind(one_token_inputs(runner.facts)), logits)
    runner.close()
    return logits[0]


def save_in_mindspore_format(directory, target, file_format, *, fused=False):
    """The same weights as MindSpore writes them, in mindformers' names; from our own reader."""
    from model.mindspore_common.import_quietly import import_mindformers

    import_mindformers()
    import mindspore as ms

    spec, _ = read_model(Path(directory))
    tensors = []
    for weight in network_weights(spec, "Llama", canonical_weights(spec, Path(directory)), fused=fused):
        names = weight.name.split()
        parts = np.split(weight.read(np.float32), len(names))
        tensors += [{"name": name, "data": ms.Tensor(part)} for name, part in zip(names, parts, strict=True)]
    ms.save_checkpoint(tensors, str(target), format=file_format)


def garbage_of_steps(directory, steps=300):
    """Objects that only the cyclic collector would free, after so many steps of either kind."""
    runner = loaded(directory)
    inputs = one_token_inputs(runner.facts)
    binding = runner.bind(inputs)
    logits, token = np.empty((1, runner.facts.vocab_size), np.float32), np.empty((1, 1), np.int32)
    runner.step(binding, logits)
    gc.collect()
    gc.disable()
    for _ in range(steps):
        runner.step(binding, logits)
        step_greedy(runner, binding, Best(token, log_sum_exp=np.empty(1)))
    found = gc.collect()
    gc.enable()
    runner.close()
    return found


def rebound(directory, generations=60):
    """What is left of bindings over shared memory that was given back: mappings, and memory in KiB that the second
    half of the generations has added."""
    runner = loaded(directory)
    logits = np.empty((1, runner.facts.vocab_size), np.float32)
    memory_kib, seen = [], set()
    for _ in range(generations):
        segment = ipc.Segment.create("rebound", 1 << 20)
        segment.unlink()
        _bind_and_step(runner, segment.map, logits)
        segment.close()
        del segment
        seen.add(Path("/proc/self/maps").read_text().count("ringserve-rebound"))
        memory_kib.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)
    runner.close()
    return seen, memory_kib[-1] - memory_kib[generations // 2]


def _bind_and_step(runner, memory, logits):
    bindings = [runner.bind(one_token_inputs(runner.facts, memory)) for _ in range(20)]
    for binding in bindings:
        runner.step(binding, logits)

"""Writes tests/model/data/sampling_transformers.npz: what Hugging Face transformers makes of random logits.

`make fixtures` installs torch and runs this; the result is kept in the repository.

Every case is a row of logits, a history and settings; the result is the probability of each token after the
processors and warpers of transformers, applied in vLLM's order (min-p directly after the temperature).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.lab.paths import ROOT

VOCAB, CASES, SEED = 1500, 32, 20240521
PROMPT, OUTPUT, STOP = 40, 25, 3  # tokens of each history, and stop tokens held back by min_tokens
Array = NDArray[Any]
Arrays = dict[str, Array]
TARGET = ROOT / "tests" / "model" / "data" / "sampling_transformers.npz"


def settings(rng: np.random.Generator) -> Arrays:
    """Columns of parameters; every warper is off in about a third of the cases."""

    def sometimes(values: Array, off: float) -> Array:
        return np.where(rng.random(CASES) < 1 / 3, off, values)

    return {
        "temperature": sometimes(rng.uniform(0.2, 2.0, CASES), 1.0),
        "top_k": sometimes(rng.integers(1, 200, CASES), 0).astype(np.int64),
        "top_p": sometimes(rng.uniform(0.05, 0.99, CASES), 1.0),
        "min_p": sometimes(rng.uniform(0.001, 0.3, CASES), 0.0),
        "repetition_penalty": sometimes(rng.uniform(0.7, 1.6, CASES), 1.0),
        "min_tokens": np.where(rng.random(CASES) < 0.5, 0, OUTPUT + 5),
    }


def rows(rng: np.random.Generator) -> Arrays:
    scale = rng.uniform(0.5, 4, (CASES, 1))
    return {
        "logits": (rng.normal(0, 1, (CASES, VOCAB)) * scale).astype(np.float32),
        "prompt": rng.integers(0, VOCAB, (CASES, PROMPT)).astype(np.int32),
        "output": rng.integers(0, VOCAB // 10, (CASES, OUTPUT)).astype(np.int32),
        "bias_ids": np.stack([rng.choice(VOCAB, 5, replace=False) for _ in range(CASES)]),
        "bias_values": rng.uniform(-6, 6, (CASES, 5)),
        "stop": np.stack([rng.choice(VOCAB, STOP, replace=False) for _ in range(CASES)]),
    }


def chain(case: Arrays) -> Any:
    from transformers import generation as hf

    processors = hf.LogitsProcessorList()
    bias = zip(case["bias_ids"].tolist(), case["bias_values"].tolist(), strict=True)
    processors.append(hf.SequenceBiasLogitsProcessor({(token,): value for token, value in bias}))
    if case["min_tokens"]:
        stop, minimum = case["stop"].tolist(), int(case["min_tokens"])
        processors.append(hf.MinNewTokensLengthLogitsProcessor(PROMPT, minimum, stop, device="cpu"))
    processors.append(hf.RepetitionPenaltyLogitsProcessor(float(case["repetition_penalty"])))
    processors.append(hf.TemperatureLogitsWarper(float(case["temperature"])))
    if case["min_p"] > 0:
        processors.append(hf.MinPLogitsWarper(float(case["min_p"])))
    if case["top_k"] > 0:
        processors.append(hf.TopKLogitsWarper(int(case["top_k"])))
    if case["top_p"] < 1:
        processors.append(hf.TopPLogitsWarper(float(case["top_p"])))
    return processors


def probabilities(case: Arrays) -> Array:
    import torch

    history = torch.tensor(np.concatenate([case["prompt"], case["output"]]), dtype=torch.long)[None]
    scores = chain(case)(history, torch.tensor(case["logits"])[None])
    return np.asarray(torch.softmax(scores.double(), dim=-1)[0].numpy(), np.float32)


def main() -> None:
    rng = np.random.default_rng(SEED)
    arrays = {**settings(rng), **rows(rng)}
    cases = [{name: column[i] for name, column in arrays.items()} for i in range(CASES)]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, probabilities=np.stack([probabilities(case) for case in cases]), **arrays)
    print(f"{TARGET.name}: {CASES} cases, {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()

"""lm-evaluation-harness: its scores of a task of its own must be those of transformers on the same checkpoint, and so
must be which continuations it calls greedy."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

import lm_eval
import requests
from checks import URL, run, same
from lm_eval.tasks import TaskManager

DEMO = Path(__file__).parents[4] / "model" / "demo"
QUESTIONS = 12
LONGEST = 1001  # tokens of a prompt, and the one behind it
OFF = 2e-3  # a sum of some hundred log-probabilities

TASKS = {
    "choice": {
        "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    },
    "continuation": {
        "output_type": "loglikelihood", "doc_to_target": " {{choices[gold]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "text": {
        "output_type": "loglikelihood_rolling", "doc_to_target": "{{question}} {{choices[gold]}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}  # fmt: skip


def write_tasks(folder: Path) -> None:
    """Of each question the model's own answer, cut, and one to another question. JSON is YAML."""
    lines = (DEMO / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["questions"][-1] for line in lines[:QUESTIONS]]
    answers = [said(question) for question in questions]
    documents = [
        {"question": question, "choices": [answers[i - 1], answers[i]], "gold": 1}
        for i, question in enumerate(questions)
    ]
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    usual = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}},
        "test_split": "test", "doc_to_text": "Question: {{question}}\nAnswer:",
    }  # fmt: skip
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **usual, **task}))


def said(question: str) -> str:
    body = {"prompt": f"Question: {question}\nAnswer:", "max_tokens": 12, "temperature": 0}
    answer = requests.post(f"{URL}/v1/completions", json=body, timeout=60).json()
    return str(answer["choices"][0]["text"]).strip()


@functools.cache
def folder() -> Path:
    directory = Path(tempfile.mkdtemp())
    write_tasks(directory)
    return directory


def evaluated(kind: str, **arguments: Any) -> dict[str, list[Any]]:
    """Log-likelihoods by task, document and choice; with whether each is greedy, but for whole texts."""
    tasks = TaskManager(include_path=str(folder()), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=list(TASKS), task_manager=tasks, bootstrap_iters=0
    )
    return {name: [resp for sample in found["samples"][name] for resp in sample["resps"]] for name in TASKS}


@functools.cache
def reference(*, bos: bool) -> dict[str, list[Any]]:
    return evaluated("hf", pretrained=str(DEMO), dtype="float32", device="cpu", add_bos_token=bos)


def compare(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    flags = set()
    for name in TASKS:
        same(len(found[name]), len(expected[name]))
        for ours, theirs in zip(found[name], expected[name], strict=True):
            for one, other in zip(_pairs(ours), _pairs(theirs), strict=True):
                same(one[1:], other[1:])
                flags |= set(one[1:])
                if not abs(one[0] - other[0]) < OFF:
                    raise AssertionError(f"{name}: {one} in place of {other}")
    same(flags, {True, False})


def _pairs(response: Any) -> list[tuple[Any, ...]]:
    """Log-likelihood and, where it is told, whether it is greedy."""
    return [one if isinstance(one, tuple) else (one,) for one in response]


def scores() -> None:
    url = f"{URL}/v1/completions"
    found = evaluated(
        "local-completions", model="ringserve-demo", base_url=url, tokenizer=str(DEMO),
        tokenizer_backend="huggingface", add_bos_token=True, max_length=LONGEST, num_concurrent=4,
    )  # fmt: skip
    compare(found, reference(bos=True))


def servers_tokenizer() -> None:
    """As it is found without any options, several prompts at once."""
    url = f"{URL}/v1/completions"
    found = evaluated("local-completions", model="ringserve-demo", base_url=url, max_length=LONGEST, batch_size=8)
    compare(found, reference(bos=False))


run("lm-eval", scores=scores, servers_tokenizer=servers_tokenizer)

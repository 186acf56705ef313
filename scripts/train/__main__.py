"""Train the demo model on the text in `scripts/train/data` and write it to `model/demo`.

    pip install -e '.[train]'
    python -m scripts.train

A run is determined by its seed, the number of threads and the version of torch. An interrupted run goes on
from its last finished epoch. At the end the share of the taught questions that are answered word for word is
printed, for the weights as they are shipped (float16) and for each form of prompt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from scripts.lab.paths import ROOT
from scripts.train import corpus
from scripts.train.bpe import train_tokenizer
from scripts.train.corpus import Corpus, Document
from scripts.train.evaluation import Verdict, judge, share
from scripts.train.export import round_to_float16, save_golden, save_model, save_questions
from scripts.train.llama import Llama, LlamaShape
from scripts.train.loop import Trainer, TrainingPlan

DATA = ROOT / "scripts" / "train" / "data"
GOLDEN_LINES = 20

Form = Callable[[str, str], Document]
FORMS: dict[str, Form] = {
    "chat": corpus.chat_document,
    "completion": corpus.completion_document,
    "bare": corpus.bare_document,
}


def main() -> int:
    options = parse_options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    options.work.mkdir(parents=True, exist_ok=True)

    text = corpus.read_corpus(DATA)
    shape = LlamaShape.of_demo()
    tokenizer = train_tokenizer(text.texts(), shape.vocab_size)
    model = Llama(shape)
    report_sizes(model, text)

    train(model, tokenizer, text, options)
    round_to_float16(model)
    save_model(model, tokenizer, options.output)
    save_questions(text.pairs, options.output)
    return evaluate(model, tokenizer, text, options.output)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--output", type=Path, default=ROOT / "model" / "demo")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "train_demo", help="checkpoint")
    parser.add_argument("--epochs", type=int, default=21)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="do not go on from a checkpoint")
    return parser.parse_args()


def report_sizes(model: Llama, text: Corpus) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    questions = sum(len(pair.questions) for pair in text.pairs)
    counts = f"{len(text.pairs)} answers to {questions} questions, {len(text.passages)} passages"
    print(f"{parameters:,} parameters; {counts}", flush=True)


def train(model: Llama, tokenizer: Tokenizer, text: Corpus, options: argparse.Namespace) -> None:
    plan = TrainingPlan(seed=options.seed, epochs=options.epochs)
    trainer = Trainer(model, tokenizer, text.epoch, plan)
    checkpoint = options.work / "checkpoint.pt"
    if checkpoint.exists() and not options.fresh:
        trainer.resume(checkpoint)
        print(f"going on after epoch {trainer.epoch}")
    for line in trainer.run(checkpoint):
        print(line, flush=True)


def evaluate(model: Llama, tokenizer: Tokenizer, text: Corpus, output: Path) -> int:
    """Print the shares of exact answers, write the golden lines, return 1 when too few are exact."""
    golden: list[tuple[str, Document, Verdict]] = []
    shares = []
    for name, form in FORMS.items():
        documents = [form(question, pair.answer) for pair in text.pairs for question in pair.questions]
        verdicts = judge(model, tokenizer, documents)
        shares.append(share(verdicts))
        print(f"{name}: {shares[-1]:.2%} of {len(documents)} questions answered exactly")
        golden += [(name, *entry) for entry in zip(documents, verdicts, strict=True)]
    prose = share(judge(model, tokenizer, continuations(text.passages)))
    print(f"passages: {prose:.2%} of {len(text.passages)} continued exactly from their first words")
    save_golden(choose_golden(golden), tokenizer, output)
    return 0 if min(shares) > 0.95 else 1


def continuations(passages: list[str]) -> list[Document]:
    """Each passage with its first ten words as the prompt."""
    documents = []
    for passage in passages:
        words = passage.split(" ")
        prompt, rest = " ".join(words[:10]), " " + " ".join(words[10:])
        documents.append([corpus.Span(corpus.BOS + prompt, False), corpus.Span(rest + corpus.EOS, True)])
    return documents


def choose_golden(entries: list[tuple[str, Document, Verdict]]) -> list[tuple[str, Document, Verdict]]:
    """Spread over forms and topics; of each stretch the answer that rounding is least likely to change.

    Answers of one sentence are left out, since they say little about a long run of decode steps; no answer
    comes twice.
    """
    longer = [entry for entry in entries if ". " in entry[1][-1].text]
    stride = len(longer) / GOLDEN_LINES
    chosen: dict[str, tuple[str, Document, Verdict]] = {}
    for part in range(GOLDEN_LINES):
        stretch = longer[int(part * stride) : int((part + 1) * stride)]
        new = [entry for entry in stretch if entry[1][-1].text.strip() not in chosen]
        best = max(new, key=lambda entry: entry[2].margin)
        chosen[best[1][-1].text.strip()] = best
    return list(chosen.values())


if __name__ == "__main__":
    sys.exit(main())

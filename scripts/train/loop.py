"""The training loop: AdamW, a learning rate that rises, falls and cools down, checkpoints, progress lines."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from scripts.train.batches import IGNORED, Batch, make_batches, tokenize
from scripts.train.corpus import Document
from scripts.train.llama import Llama

EpochSource = Callable[[random.Random], list[Document]]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    seed: int
    epochs: int
    batch_tokens: int = 512
    peak_rate: float = 3e-3
    warmup_share: float = 0.04  # of the horizon
    weight_decay: float = 0.02
    clip_norm: float = 1.0

    @property
    def horizon(self) -> int:
        """Epochs after which the rate would reach zero by its slow fall alone."""
        return round(1.5 * self.epochs)

    @property
    def cooldown(self) -> int:
        """Epochs at the end in which it is brought down to zero."""
        return round(0.6 * self.epochs)

    def rate_factor(self, epoch: float) -> float:
        """Share of the peak rate after so many epochs.

        What was learned by heart at a high rate becomes exact in the cooldown only, so that must be long.
        """
        progress = epoch / self.horizon
        slow = min(progress / self.warmup_share, (1 - progress) / (1 - self.warmup_share))
        return slow * min(1.0, (self.epochs - epoch) / self.cooldown)


class Trainer:
    """Runs one epoch after another.

    What an epoch holds depends on the seed and its number only, so a resumed run equals an unbroken one.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, source: EpochSource, plan: TrainingPlan) -> None:
        self.model, self.tokenizer, self.source, self.plan = model, tokenizer, source, plan
        self.optimizer = _make_optimizer(model, plan)
        self.epoch = 0

    def resume(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]

    def save(self, checkpoint: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def run(self, checkpoint: Path) -> Iterator[str]:
        """Train to the end and yield one line per epoch."""
        while self.epoch < self.plan.epochs:
            started = time.monotonic()
            loss, correct, tokens = self._run_epoch()
            self.epoch += 1
            self.save(checkpoint)
            seconds = time.monotonic() - started
            yield (
                f"epoch {self.epoch}/{self.plan.epochs}  loss {loss:.4f}  next token right {correct:.2%}"
                f"  {seconds:.1f} s  {tokens / seconds:.0f} tokens/s"
            )

    def _run_epoch(self) -> tuple[float, float, int]:
        rng = random.Random(f"{self.plan.seed}/{self.epoch}")  # noqa: S311 - repeatable, not secret
        examples = [tokenize(document, self.tokenizer) for document in self.source(rng)]
        batches = make_batches(examples, self.plan.batch_tokens, rng)
        loss, correct, learned = 0.0, 0, 0
        for number, batch in enumerate(batches):
            self._set_rate(self.epoch + number / len(batches))
            batch_loss, batch_correct, count = self._step(batch)
            loss += batch_loss * count
            correct += batch_correct
            learned += count
        return loss / learned, correct / learned, sum(batch.inputs.numel() for batch in batches)

    def _step(self, batch: Batch) -> tuple[float, int, int]:
        learned = batch.labels != IGNORED
        labels = batch.labels[learned]
        logits = self.model.logits(self.model(batch.inputs)[learned])
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), int((logits.argmax(-1) == labels).sum()), len(labels)

    def _set_rate(self, epoch: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.peak_rate * self.plan.rate_factor(epoch)


def _make_optimizer(model: Llama, plan: TrainingPlan) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.95))

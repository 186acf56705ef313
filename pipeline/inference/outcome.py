"""What a step yielded, in a slot of the logits ring."""

from __future__ import annotations

from model.runner import Best
from pipeline.inference._step import SampleColumns
from pipeline.wire.step import Int32, LogitsColumns, Scores

_MOST_SIZES = 4096  # for which views are kept


class Outcome:
    """Of one slot; it serves every step that comes by. Views are made once for each size that occurs."""

    __slots__ = ("_best", "columns", "views")

    def __init__(self, views: LogitsColumns) -> None:
        self.views = views
        self.columns = SampleColumns(
            views.rows, views.epochs, views.lengths, views.targets, views.logit_rows, views.ids
        )
        self._best: dict[tuple[int, int, int], Best] = {}

    def best(self, samples: int, candidates: int, scores: int) -> Best:
        """Where the device's best go."""
        key = samples, candidates, scores
        if len(self._best) > _MOST_SIZES:
            self._best.clear()
        return self._best.get(key) or self._best.setdefault(key, self._make(*key))

    def _make(self, samples: int, candidates: int, scores: int) -> Best:
        views, count, shape = self.views, samples * candidates, (samples, candidates)
        ids = views.ids[:count].reshape(shape)
        if not scores:
            return Best(ids)
        logits, log_sum_exp = views.best_logits[:count].reshape(shape), views.log_sum_exp[:samples]
        return Best(ids, logits, log_sum_exp, views.target_logits[:samples] if scores == Scores.TARGETS else None)

    def targets(self, samples: int, scores: int) -> Int32 | None:
        return self.views.targets[:samples] if scores == Scores.TARGETS else None

"""Turns logits into tokens: a whole batch in one call, every row by its own rules.

The order of the operations on a row is vLLM's (``vllm/v1/sample/sampler.py``), which is also that of Hugging
Face transformers (``GenerationMixin._get_logits_processor``) but for min-p, which comes after top-p there:

1. log-probabilities, if asked for, are those of the raw logits;
2. logit bias, banned tokens, and stop tokens banned until ``min_tokens``; then the tokens outside of the row's mask;
3. repetition penalty over prompt and output (``x / r`` if x > 0, else ``x * r``; Keskar et al. 2019,
   arXiv:1909.05858), then frequency and presence penalty over the output (OpenAI's ``x - n f - p``);
4. temperature 0: the largest logit, of equal ones the lowest id. Else temperature, min-p
   (``p >= min_p * p_max``), top-k (all that equal the k-th stay), top-p (the smallest set of most probable
   tokens that holds ``top_p``, of equal ones the lowest ids), and one draw: the token, in order of ids, at
   which the cumulative probability passes ``u``, the double that ``numpy.random.Philox`` gives first with key
   ``seed`` and counter ``position - 1``.

The draw depends on logits, parameters, seed and position alone: not on the batch, the call or the machine, so
that a sequence can be resumed anywhere. The logits are never written.
"""

from ._kernels import DRAW, BestOfRows, Drafter, Drawer
from .params import MAX_GRAMMAR_BYTES, MAX_REPETITION_PENALTY, RANGES, ParameterError, SamplingLimits, SamplingParams
from .sampler import RowStatus, SampleOutputs, Sampler, explain

__all__ = [
    "DRAW",
    "MAX_GRAMMAR_BYTES",
    "MAX_REPETITION_PENALTY",
    "RANGES",
    "BestOfRows",
    "Drafter",
    "Drawer",
    "ParameterError",
    "RowStatus",
    "SampleOutputs",
    "Sampler",
    "SamplingLimits",
    "SamplingParams",
    "explain",
]

"""Rotary embeddings as ``config.json`` describes them: today's ``rope_parameters``, and ``rope_scaling`` before."""

from __future__ import annotations

import math

from model.families.fields import Fields
from model.families.rope import Rope

_DEFAULT_THETA = 10000.0
_KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def read_rope(c: Fields, head_dim: int, theta: float = _DEFAULT_THETA, part: float = 1.0) -> tuple[Rope, int]:
    """The embedding, and how many dimensions of a head it rotates. ``theta``, ``part``: the family's defaults.

    Raises ConfigurationError for kinds that are not known and for what a kind lacks.
    """
    parameters, older = c.section("rope_parameters"), c.section("rope_scaling")
    theta = c.number("rope_theta", theta)
    given = parameters or older or Fields({})
    rotary_dim = int(head_dim * given.number("partial_rotary_factor", c.number("partial_rotary_factor", part)))
    return read_scaling(given, c, given.number("rope_theta", theta), rotary_dim), rotary_dim


def read_scaling(r: Fields, c: Fields, theta: float, rotary_dim: int) -> Rope:
    """From the section ``r`` of the configuration ``c``."""
    kind = r.text("rope_type", r.text("type", "default"))
    if kind == "su":  # of the first Phi-3
        kind = "longrope"
    if kind in {
        "default",
        "dynamic",
    }:  # the same up to max_position_embeddings
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "linear", _factor(r))
    if kind == "llama3":
        return Rope(
            theta,
            "llama3",
            _factor(r),
            r.count("original_max_position_embeddings"),
            low_turns=r.number("low_freq_factor"),
            high_turns=r.number("high_freq_factor"),
        )
    if kind == "yarn":
        return _yarn(r, c, theta)
    if kind == "longrope":
        return _longrope(r, c, theta, rotary_dim)
    raise r.error("rope_type" if r.get("rope_type") else "type", f"supported are {', '.join(_KINDS)}")


def _factor(r: Fields) -> float:
    factor = r.number("factor")
    if factor < 1:
        raise r.error("factor", "it must be at least 1")
    return factor


def _yarn(r: Fields, c: Fields, theta: float) -> Rope:
    factor = _factor(r)
    part, whole = r.number("mscale", 0.0), r.number("mscale_all_dim", 0.0)
    magnitude = yarn_magnitude(factor, part) / yarn_magnitude(factor, whole) if part and whole else None
    return Rope(
        theta,
        "yarn",
        factor,
        _original_length(r, c),
        magnitude=r.number("attention_factor", magnitude or yarn_magnitude(factor)),
        low_turns=r.number("beta_slow", 1.0),
        high_turns=r.number("beta_fast", 32.0),
        truncate=r.flag("truncate", True),
    )


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1


def _longrope(r: Fields, c: Fields, theta: float, rotary_dim: int) -> Rope:
    original = _original_length(r, c)
    factor = r.number("factor", c.count("max_position_embeddings") / original)
    magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(
        theta,
        "longrope",
        factor,
        original,
        magnitude=r.number("attention_factor", magnitude),
        short_factors=r.numbers("short_factor", rotary_dim // 2),
        long_factors=r.numbers("long_factor", rotary_dim // 2),
    )


def _original_length(r: Fields, c: Fields) -> int:
    key = "original_max_position_embeddings"
    return r.count(key, c.count(key, c.count("max_position_embeddings")))

"""The tokenizer a configuration names, which tokens end an answer, and how the model's makers sample."""

from __future__ import annotations

import logging

from model.errors import TokenizerError
from model.generation_config import read_sampling_defaults
from model.response import ResponseFormat, choose_format
from model.tokenizer import Tokenizer, Vocabulary, load_tokenizer
from pipeline.config import Configuration

log = logging.getLogger("ringserve.front")


def open_tokenizer(config: Configuration, vocab_size: int) -> Tokenizer:
    """Raises TokenizerError when it or the chat template is missing or broken, or it has ids unknown to the model."""
    assert config.tokenizer.vocab_file is not None  # the configuration was checked
    return load_tokenizer(
        config.tokenizer.vocab_file, model_vocab_size=vocab_size, chat_template=config.pipeline.chat_template
    )


def end_ids(config: Configuration, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end every answer that does not ask otherwise."""
    return tokenizer.eos_ids | {config.model_config.end_token}


def response_format(config: Configuration, tokenizer: Vocabulary) -> ResponseFormat | None:
    """How the model writes reasoning and calls; None: not known. A checkpoint's `response_template` that can't be
    executed is told to the operator, and left aside: answers can do without."""
    names = config.pipeline.tool_format, config.pipeline.reasoning_format
    try:
        return choose_format(tokenizer, *names)
    except TokenizerError as error:
        log.warning("the checkpoint's response template is not used: %s", error)
        return choose_format(tokenizer, *names, response_template=False)


def sampling_defaults(config: Configuration) -> dict[str, float]:
    """Of requests that say nothing else. Raises GenerationConfigError for a file that is broken."""
    if config.pipeline.generation_config == "none":
        return {}
    places = (config.model_config.checkpoint_path, config.tokenizer.vocab_file)
    folders = [place if place.is_dir() else place.parent for place in places if place is not None]
    return next(filter(None, map(read_sampling_defaults, folders)), {})

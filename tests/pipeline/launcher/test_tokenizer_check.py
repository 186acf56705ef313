"""The tokenizer is looked at before any stage is started, by a process that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from model.errors import TokenizerError
from pipeline.config import load_configuration
from pipeline.launcher.tokenizer_check import TokenizerCheck
from pipeline.runtime.vocabulary import VocabularyFile, map_vocabulary
from tests.server.launched import write_config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: None, None),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is not a tokenizer.json that tokenizers"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if"), "not valid Jinja"),
        (
            lambda folder: (folder / "generation_config.json").write_text("["),
            "generation_config.json is not valid JSON",
        ),
    ],
)
def test_what_is_found(change, expected, tokenizer_file, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    change(folder)
    config = load_configuration(write_config(tmp_path, tokenizer=folder))
    with contextlib.closing(VocabularyFile()) as vocabulary, TokenizerCheck(config, vocabulary) as check:
        if expected is None:
            check.require()
            assert map_vocabulary(vocabulary.fd).name == str(folder / "tokenizer.json")
        else:
            with pytest.raises(TokenizerError, match=expected):
                check.require()
    with pytest.raises(ChildProcessError):
        os.waitpid(check.pid, os.WNOHANG)


def test_one_that_is_killed_is_no_success(tokenizer_file, tmp_path, monkeypatch):
    abort = "pipeline.launcher.tokenizer_check.open_tokenizer"
    monkeypatch.setattr(abort, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    config = load_configuration(write_config(tmp_path, tokenizer=tokenizer_file))
    with TokenizerCheck(config) as check, pytest.raises(TokenizerError, match="died, probably for lack of memory"):
        check.require()


def test_a_check_that_nobody_waits_for_ends(tokenizer_file, tmp_path):
    with TokenizerCheck(load_configuration(write_config(tmp_path, tokenizer=tokenizer_file))) as check:
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(check.pid, os.WNOHANG)

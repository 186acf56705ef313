"""The vocabulary that is handed over: sealed, for its owner alone, and enough for a front."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
import subprocess
import sys

import pytest

from model.demo import DEMO_DIR
from model.errors import TokenizerError
from model.tokenizer import load_tokenizer
from pipeline.runtime.vocabulary import VocabularyFile, map_vocabulary, vocabulary_hash

_FRONT = """
import sys
import pipeline.front.main
from pipeline.runtime.vocabulary import map_vocabulary
table = map_vocabulary(int(sys.argv[1]))
assert table.render_chat([{"role": "user", "content": "<s>"}])[0] and table.decode(range(table.vocab_size))
print({"tokenizers", "sentencepiece", "transformers"} & sys.modules.keys())
"""


@pytest.fixture
def file():
    with contextlib.closing(VocabularyFile()) as file:
        yield file


def test_it_can_be_read_and_never_changed(file):
    tokenizer = load_tokenizer(DEMO_DIR)
    file.fill(tokenizer)
    for _ in range(2):  # a front that is started anew reads it again
        table = map_vocabulary(file.fd)
        assert table.every_token_bytes(table.vocab_size) == tokenizer.every_token_bytes(tokenizer.vocab_size)
    with pytest.raises(PermissionError):
        os.pwrite(file.fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(file.fd, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(file.fd, 0, flags=mmap.MAP_SHARED)
    assert stat.S_IMODE(os.fstat(file.fd).st_mode) == 0o600


def test_its_hash_is_of_the_tokenizer_and_not_of_its_place(tmp_path):
    """With a chat template in a file of its own."""
    hashes = set()
    for name in ("one", "another", "third"):
        folder = shutil.copytree(DEMO_DIR, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
        (folder / "chat_template.jinja").write_text("{{ messages }}" + name * (name == "third"))
        with contextlib.closing(VocabularyFile()) as packed:
            packed.fill(load_tokenizer(folder))
            hashes.add(vocabulary_hash(packed.fd))
        assert len(hashes) == (2 if name == "third" else 1)


def test_an_empty_one_is_refused(file):
    with pytest.raises(TokenizerError, match="handed over is damaged"):
        map_vocabulary(file.fd)


def test_a_front_gets_by_without_a_tokenizer_s_library(file):
    file.fill(load_tokenizer(DEMO_DIR))
    command = [sys.executable, "-c", _FRONT, str(file.fd)]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[file.fd], timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr

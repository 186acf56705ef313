"""Tokenizers of any size, for measurements: bytes, then frequent pieces of words, as crowded as real vocabularies."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model.tokenizer.alphabet import byte_level_alphabet
from scripts.lab.errors import BenchError
from scripts.lab.paths import ROOT

_WORDS = re.compile(r" ?[A-Za-z]+| ?[0-9]{1,3}| ?[^\sA-Za-z0-9]+|\s+")
_END = "</s>"


def write_tokenizer(folder: Path, size: int) -> Path:
    """A tokenizer.json of so many tokens, the last of which ends an answer; from the text of this repository and of
    the installed packages. Raises BenchError if there is not enough of it."""
    signs = {byte: sign for sign, byte in byte_level_alphabet().items()}
    pieces = [bytes([byte]) for byte in range(256)] + frequent(size - 257)
    vocabulary = {"".join(signs[byte] for byte in piece): at for at, piece in enumerate(pieces)}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([_END])
    path = folder / "tokenizer.json"
    library.save(str(path))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": _END}))
    return path


def frequent(most: int) -> list[bytes]:
    """Pieces of 2 to 24 bytes."""
    words: Counter[str] = Counter()
    folders = [*ROOT.glob("*/**/*.py"), *ROOT.glob("docs/*.md"), *Path(json.__file__).parent.parent.glob("*/*.py")]
    for file in folders:
        if ".venv" not in file.parts:
            words.update(_WORDS.findall(file.read_text(encoding="utf-8", errors="replace")))
    pieces: Counter[bytes] = Counter()
    for word, times in words.items():
        data = word.encode()[:40]
        for start, end in itertools.combinations(range(len(data) + 1), 2):
            if 2 <= end - start <= 24:
                pieces[data[start:end]] += times * (end - start)
    if len(pieces) < most:
        raise BenchError(f"there is text for {len(pieces) + 257} tokens only")
    return [piece for piece, _ in pieces.most_common(most)]

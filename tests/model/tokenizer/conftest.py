"""Small tokenizers of every supported kind, trained here on a few sentences."""

from __future__ import annotations

import json

import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from model.tokenizer import load_tokenizer

TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "Rings in shared memory hand descriptors from one process to the next.",
    "  Two leading spaces, and   several inside. 0123456789",
    "Übergrößenträger naïve café",
    "На дворе трава, на траве дрова.",
    "中文和日本語のテキスト。",
    "emoji 😀 and 👩‍👩‍👧‍👦",
]

# Each contains signs that no tokenizer here has as a token, so they come as single bytes.
SCRIPTS = [
    "plain English text",
    " a leading space",
    "   three leading spaces\n\tand a tab",
    "Ünïcödé àccents ñ ß ø",
    "Ελληνικά και Кириллица",
    "עברית وعربي",
    "हिन्दी और தமிழ்",
    "ภาษาไทย မြန်မာ ខ្មែរ",
    "中文，日本語、한국어",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇺🇳 e\u0301 \U0001f44d\U0001f3fd",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀𓂀 \u200b\ufeff\u2028",
    "mixed: aé中😀b 😀😀😀中中中",
    "\x00\x01\x7f control",
    "",
]

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]


def train_byte_level() -> Tokenizer:
    """Like GPT-2 and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.add_special_tokens(["<|eot|>"])
    tokenizer.add_tokens(["<tool>", "two words"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def train_byte_fallback() -> Tokenizer:
    """Like the tokenizer.json of Llama 2."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")],
    )
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=[*SPECIAL_TOKENS, *byte_tokens],
            show_progress=False,
            limit_alphabet=60,
        ),
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # byte tokens are ordinary tokens
    content["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def train_metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL_TOKENS, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


LIBRARY_TOKENIZERS = {
    "byte_level": train_byte_level,
    "byte_fallback": train_byte_fallback,
    "metaspace": train_metaspace,
}

SENTENCEPIECE_OPTIONS = {
    "llama": {"add_dummy_prefix": True, "remove_extra_whitespaces": False},
    "squeezing": {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
    "plain": {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
}


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory):
    """Paths by kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    files = {}
    for kind, train in LIBRARY_TOKENIZERS.items():
        (folder / kind).mkdir()
        files[kind] = folder / kind / "tokenizer.json"
        train().save(str(files[kind]))
    for kind, options in SENTENCEPIECE_OPTIONS.items():
        (folder / kind).mkdir()
        files[kind] = folder / kind / "tokenizer.model"
        with files[kind].open("wb") as stream:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXT * 3),
                model_writer=stream,
                vocab_size=420,
                model_type="bpe",
                byte_fallback=True,
                normalization_rule_name="identity",
                user_defined_symbols=["<tool>"],
                minloglevel=2,
                **options,
            )
    return files


ALL_KINDS = [*LIBRARY_TOKENIZERS, *SENTENCEPIECE_OPTIONS]


@pytest.fixture(params=ALL_KINDS)
def kind(request):
    return request.param


@pytest.fixture
def tokenizer(kind, tokenizer_files):
    """Ours."""
    return load_tokenizer(tokenizer_files[kind])


@pytest.fixture
def library(kind, tokenizer_files):
    """The independent reference: the library that the file is made for."""
    path = tokenizer_files[kind]
    if path.suffix == ".json":
        return Tokenizer.from_file(str(path))
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(params=SCRIPTS, ids=range(len(SCRIPTS)))
def text(request):
    return request.param


@pytest.fixture(params=["byte_level", "byte_fallback", "llama", "plain"])
def tokenizer_kinds_with_bytes(request, tokenizer_files):
    """Those that can write any text; without `squeezing`, which changes spaces on purpose."""
    return load_tokenizer(tokenizer_files[request.param])


@pytest.fixture(scope="session")
def byte_level_tokenizer(tokenizer_files):
    return load_tokenizer(tokenizer_files["byte_level"])

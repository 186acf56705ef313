"""vocab.json with merges.txt, and tiktoken's ranks, against the library and against tiktoken's own procedure."""

from __future__ import annotations

import base64
import json
import random

import pytest
import regex
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from model.errors import TokenizerError
from model.tokenizer import load_tokenizer
from tests.model.tokenizer.conftest import TEXT

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
IM_END = {"content": "<|im_end|>", "special": True, "normalized": False}


def trained(kind):
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "Qwen2Tokenizer":
        library.normalizer = normalizers.NFC()
        library.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return library


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer"])
def test_a_vocabulary_and_its_merges_encode_as_the_library(kind, tmp_path, text):
    library = trained(kind)
    library.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": kind, "added_tokens_decoder": {"400": IM_END}, "eos_token": "<|im_end|>"})
    )
    ours = load_tokenizer(tmp_path)
    ids = library.encode(text).ids
    assert ours.encode(text) == ids
    assert ours.encode(text + "<|im_end|>") == [*ids, 400]
    assert ours.decode(ids) == (library.normalizer.normalize_str(text) if library.normalizer else text)
    assert (ours.eos_id, ours.special_ids) == (400, {400})


def test_added_tokens_of_an_older_file_and_the_family_of_the_model(tmp_path):
    trained("GPT2Tokenizer").model.save(str(tmp_path))
    for name, content in (
        ("added_tokens.json", {"<|im_end|>": 400, "<tool>": 401}),
        ("special_tokens_map.json", {"eos_token": "<|im_end|>"}),
        ("config.json", {"model_type": "qwen3"}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("a<|im_end|><tool>")[1:] == [400, 401]
    assert ours.special_ids == {400}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": '{"tokenizer_class": "CodeGenTokenizer"}'},
         "of the class CodeGenTokenizer, and how it splits.*AutoTokenizer as T; T.from_pretrained"),
        ({"config.json": '{"model_type": "phi"}'}, "of the class that no file names"),
        ({"merges.txt": "#version: 0.2\nT h e"}, r"merges.txt:2: expected two tokens .* not 'T h e'"),
        ({"merges.txt": "q z"}, "merges.txt:1: expected two tokens of vocab.json that make a third"),
        ({"vocab.json": '{"a": "b"}'}, "must map tokens to their ids"),
        ({"vocab.json": '{"a": '}, "vocab.json is not valid JSON"),
        ({"vocab.json": "version https://git-lfs.github.com/spec/v1"}, "is a Git LFS pointer"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_them(files, expected, tmp_path):
    trained("GPT2Tokenizer").model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=expected):
        load_tokenizer(tmp_path)


# ---- tiktoken ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks():
    """Bytes in some order, as in tiktoken's files, then pairs of known tokens."""
    draw = random.Random(3)
    tokens = [bytes([byte]) for byte in range(256)]
    draw.shuffle(tokens)
    pieces = [word.encode() for line in TEXT for word in regex.findall(LLAMA3, line)]
    for _ in range(1000):
        parts = merged(draw.choice(pieces), {token: rank for rank, token in enumerate(tokens)})
        if len(parts) > 1:
            at = draw.randrange(len(parts) - 1)
            tokens.append(parts[at] + parts[at + 1])
    return {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}


def merged(piece, ranks):
    """As tiktoken does it: of all neighbours those first whose token has the lowest rank."""
    if piece in ranks:
        return [piece]
    parts = [piece[at : at + 1] for at in range(len(piece))]
    while True:
        pairs = [
            (ranks[parts[at] + parts[at + 1]], at)
            for at in range(len(parts) - 1)
            if parts[at] + parts[at + 1] in ranks
        ]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def write_ranks(path, ranks):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))


def test_ranks_encode_as_tiktoken_does(ranks, tmp_path, text):
    write_ranks(tmp_path / "original" / "tokenizer.model", ranks)
    ours = load_tokenizer(tmp_path)
    expected = [ranks[part] for word in regex.findall(LLAMA3, text) for part in merged(word.encode(), ranks)]
    assert ours.encode(text, add_special=False) == expected
    assert ours.decode(expected) == text
    assert ours.encode(text) == [len(ranks), *expected]
    assert ours.encode("<|eot_id|>", add_special=False) == [len(ranks) + 9]
    assert ours.vocab_size == len(ranks) + 256
    assert ours.token_text(len(ranks) + 255) == "<|reserved_special_token_247|>"


def test_tokens_that_a_file_names(ranks, tmp_path):
    write_ranks(tmp_path / "tokenizer.model", ranks)
    begin = {"content": "<|begin_of_text|>", "special": True}
    size = len(ranks)
    config = {"added_tokens_decoder": {size: begin, size + 1: IM_END}, "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path)
    assert (ours.encode(""), ours.eos_id, ours.vocab_size) == ([size], size + 1, size + 2)
    config["added_tokens_decoder"] = {size: begin, size + 2: IM_END}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=f"which do not follow the vocabulary of {size} tokens without a gap"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: [*lines[:300], b"IQ== x"], "tokenizer.model:301: expected a token in base64 and its rank"),
        (lambda lines: lines[:100], "all 256 bytes among the tokens"),
        (lambda lines: lines[1:], "expected the ranks from 0 on"),
    ],
)
def test_ranks_that_are_damaged(ranks, change, expected, tmp_path):
    write_ranks(tmp_path / "tokenizer.model", ranks)
    lines = (tmp_path / "tokenizer.model").read_bytes().splitlines()
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(change(lines)))
    with pytest.raises(TokenizerError, match=expected):
        load_tokenizer(tmp_path)


def test_ranks_of_another_class(ranks, tmp_path):
    write_ranks(tmp_path / "tokenizer.model", ranks)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ChatGLM4Tokenizer"}')
    with pytest.raises(TokenizerError, match="of the class ChatGLM4Tokenizer, and how it splits"):
        load_tokenizer(tmp_path)


# ---- where chat templates lie ------------------------------------------------------------------------------------

JINJA = "%s{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("files", "plain", "with_tools"),
    [
        ({"chat_template.jinja": JINJA % "J"}, "J", "J"),
        ({"tokenizer_config.json": JINJA % "C"}, "C", "C"),
        ({"chat_template.json": JINJA % "P"}, "P", "P"),
        ({"chat_template.jinja": JINJA % "J", "tokenizer_config.json": JINJA % "C"}, "J", "J"),
        ({"tokenizer_config.json": JINJA % "C", "chat_template.json": JINJA % "P"}, "C", "C"),
        ({"tokenizer_config.json": JINJA % "C", "additional_chat_templates/tool_use.jinja": JINJA % "T"}, "C", "T"),
        ({"chat_template.jinja": JINJA % "J", "additional_chat_templates/tool_use.jinja": JINJA % "T"}, "J", "T"),
        ({"tokenizer_config.json": [{"name": "default", "template": JINJA % "D"},
                                    {"name": "tool_use", "template": JINJA % "T"}]}, "D", "T"),
    ],
)  # fmt: skip
def test_chat_templates_in_all_their_places(files, plain, with_tools, tokenizer_files, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_files["byte_level"].read_bytes())
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = json.dumps({"chat_template": content}) if name.endswith(".json") else content
        (tmp_path / name).write_text(text)
    ours = load_tokenizer(tmp_path)
    messages, tools = [{"role": "user", "content": "x"}], [{"type": "function", "function": {"name": "f"}}]
    assert ours.apply_chat_template(messages) == f"{plain}x"
    assert ours.apply_chat_template(messages, tools=tools) == f"{with_tools}x"


def test_templates_of_which_none_is_the_usual_one(tokenizer_files, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_files["byte_level"].read_bytes())
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("x")
    with pytest.raises(TokenizerError, match=r"rag.jinja: there are chat templates named rag, of which none has"):
        load_tokenizer(tmp_path)

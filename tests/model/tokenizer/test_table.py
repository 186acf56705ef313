"""The table of a vocabulary says the same as the tokenizer that it was made of."""

from __future__ import annotations

import json
import random

import pytest

from model.demo import DEMO_DIR
from model.errors import TokenizerError
from model.tokenizer import IncrementalDetokenizer, TokenTable, load_tokenizer, pack_vocabulary
from scripts.verify.folders import alphabets
from tests.model.tokenizer.conftest import ALL_KINDS, SCRIPTS

TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if tools %}{{ tools }}{% endif %}{{ m.content }}{% endfor %}"
ADDED = {"added_tokens_decoder": {"505": {"content": "<later>", "special": True}, "507": {"content": "two words"}}}
RESPONSES = {"response_template": {"a": [1, None]}}
CLASSES = {"ranks": "PreTrainedTokenizerFast", "vocabulary": "GPT2Tokenizer"}
MESSAGES = [{"role": "user", "content": "a </s> \udcff b"}, {"role": "developer", "content": "c"}]


@pytest.fixture(params=[*ALL_KINDS, "ranks", "vocabulary", "demo"])
def pair(request, tokenizer_files, tmp_path):
    """A tokenizer, and its table."""
    path = DEMO_DIR if request.param == "demo" else write(request.param, tokenizer_files, tmp_path / "café")
    tokenizer = load_tokenizer(path)
    return tokenizer, TokenTable(memoryview(pack_vocabulary(tokenizer)))


def write(kind, tokenizer_files, folder):
    """A folder with a tokenizer of this kind."""
    folder.mkdir()
    config = {
        "tokenizer_class": CLASSES.get(kind, "Kind"),
        "chat_template": TEMPLATE,
        **RESPONSES,
    }
    if kind in ALL_KINDS:
        source = tokenizer_files[kind]
        (folder / source.name).write_bytes(source.read_bytes())
        config |= {"bos_token": "<s>", "eos_token": "</s>", **ADDED}
    else:
        getattr(alphabets, kind)().write(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_every_token_is_the_same(pair):
    tokenizer, table = pair
    assert table.vocab_size == tokenizer.vocab_size
    for token_id in range(-1, tokenizer.vocab_size + 1):
        for at_start, skip in ((False, False), (True, False), (False, True), (True, True)):
            expected = tokenizer.piece(token_id, at_start=at_start, skip_special=skip)
            assert table.piece(token_id, at_start=at_start, skip_special=skip) == expected, token_id


def test_sequences_are_decoded_alike(pair):
    tokenizer, table = pair
    draw = random.Random(7)
    texts = [tokenizer.encode(text) for text in SCRIPTS]
    mixed = [[draw.randrange(tokenizer.vocab_size + 3) for _ in range(draw.randrange(40))] for _ in range(200)]
    special = sorted(tokenizer.special_ids)
    mixed += [[draw.choice([*special, draw.randrange(tokenizer.vocab_size)]) for _ in range(9)] for _ in range(100)]
    for ids in (*texts, *mixed):
        for skip in (True, False):
            assert table.decode(ids, skip_special=skip) == tokenizer.decode(ids, skip_special=skip)
            streams = [IncrementalDetokenizer(one, ids[:5], skip_special=skip) for one in pair]
            pushed = [[stream.push(token_id) for token_id in ids[5:]] + [stream.finish()] for stream in streams]
            assert pushed[0] == pushed[1]


def test_the_facts_are_the_same(pair):
    tokenizer, table = pair
    for name in (
        "name", "class_name", "special", "rules", "response_template", "chat_template", "chat_templates",
        "template_variables", "added_ids",
    ):  # fmt: skip
        assert getattr(table, name) == getattr(tokenizer, name), name
    assert [table.added_token_id(text) for text in ("<later>", "<none>")] == [
        tokenizer.added_token_id(text) for text in ("<later>", "<none>")
    ]
    for tools in (None, [{"type": "function"}]):
        assert table.template_asks_for("tools") == tokenizer.template_asks_for("tools")
        expected = tokenizer.render_chat(MESSAGES[:1], tools=tools)
        assert table.render_chat(MESSAGES[:1], tools=tools) == expected


def test_a_template_of_its_own_for_tools(tokenizer_files, tmp_path):
    folder = write("byte_level", tokenizer_files, tmp_path / "model")
    templates = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "tools" + TEMPLATE}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates, "eos_token": "</s>"}))
    tokenizer = load_tokenizer(folder)
    table = TokenTable(memoryview(pack_vocabulary(tokenizer)))
    for tools in (None, [{"type": "function"}]):
        assert table.render_chat(MESSAGES, tools=tools) == tokenizer.render_chat(MESSAGES, tools=tools)
    assert table.chat_templates == tokenizer.chat_templates


def test_a_path_need_not_be_utf8(tokenizer_files, tmp_path):
    tokenizer = load_tokenizer(write("llama", tokenizer_files, tmp_path / "caf\udce9"))
    same = TokenTable(memoryview(pack_vocabulary(tokenizer))).name == tokenizer.name
    assert same  # the names themselves can't be reported


def test_a_chat_without_a_template_is_refused_alike(tokenizer_files):
    table = TokenTable(memoryview(pack_vocabulary(load_tokenizer(tokenizer_files["llama"]))))
    assert not table.has_chat_template
    with pytest.raises(TokenizerError, match="has no chat template"):
        table.render_chat(MESSAGES)


@pytest.fixture(scope="module")
def packed(tokenizer_files):
    return pack_vocabulary(load_tokenizer(tokenizer_files["metaspace"]))


@pytest.mark.parametrize("end", [0, 7, 16, 200, -1])
def test_one_that_is_cut_is_refused(packed, end):
    with pytest.raises(TokenizerError, match="handed over is damaged"):
        TokenTable(memoryview(packed[:end]))


@pytest.mark.parametrize("seed", range(8))
def test_one_that_is_changed_is_refused_or_can_be_read(packed, seed):
    """No token reaches beyond the table, whatever it holds."""
    draw, refused = random.Random(seed), 0
    for _ in range(40):
        changed = bytearray(packed)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        try:
            table = TokenTable(memoryview(bytes(changed)))
        except TokenizerError:
            refused += 1
        else:
            assert all(len(piece) < len(packed) for piece in table.every_token_bytes(min(table.vocab_size, 1000)))
    assert refused

"""Encoding and single tokens, against the libraries that the files are made for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import sentencepiece

from model.tokenizer import InvalidTextError, load_tokenizer

DEEPSEEK_STYLE = "<\uff5cé b\uff5c>"  # neither ASCII nor in the byte-level alphabet


@pytest.fixture
def configured(kind, tokenizer_files, tmp_path):
    """Makes the tokenizer of this kind with a tokenizer_config.json beside it."""

    def load(**config):
        shutil.copy(tokenizer_files[kind], tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return load_tokenizer(tmp_path)

    return load


def library_ids(library, text):
    if isinstance(library, sentencepiece.SentencePieceProcessor):
        return library.encode(text)
    return library.encode(text, add_special_tokens=False).ids


def test_ids_are_the_library_s(tokenizer, library, text):
    assert tokenizer.encode(text, add_special=False) == library_ids(library, text)


@pytest.mark.parametrize("add_special", [True, False])
def test_as_an_array_they_are_the_same_and_too_many_are_only_counted(tokenizer, text, add_special):
    ids = tokenizer.encode(text, add_special=add_special)
    for most in (len(ids), len(ids) - 1):
        count, array = tokenizer.encode_up_to(text, most, add_special=add_special)
        assert (count, array.tolist()) == (len(ids), ids if most == len(ids) else [])
        assert array.dtype == np.int32


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "llama", "plain"], indirect=True)
def test_bos_is_added_on_request(tokenizer, library):
    assert tokenizer.encode("text") == [1, *library_ids(library, "text")]


@pytest.mark.parametrize("kind", ["byte_level", "llama"], indirect=True)
@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({"add_bos_token": True}, [1], []),
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
    ],
)
def test_the_configuration_decides_about_bos_and_eos(configured, library, config, before, after):
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    ids = configured(**names, **config).encode("text")
    assert ids == [*before, *library_ids(library, "text"), *after]


def test_special_tokens_in_the_text_become_their_ids(kind, tokenizer):
    ids = tokenizer.encode("one</s>two", add_special=False)
    assert ids.count(2) == 1
    assert tokenizer.decode(ids, skip_special=False).replace(" ", "") == "one</s>two"
    assert tokenizer.decode(ids).replace(" ", "") == "onetwo"


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_sentencepiece_takes_tokens_added_by_the_configuration(configured):
    added = {
        "420": {"content": "<|im_start|>", "special": True},
        "422": {"content": "<|im|>", "special": False},
        "1": {"content": "<s>", "special": True},  # the model file has this one itself
    }
    tokenizer = configured(added_tokens_decoder=added, eos_token="<|im_start|>")
    ids = tokenizer.encode("<|im_start|>a<|im|>", add_special=False)
    assert (ids[0], ids[-1], tokenizer.vocab_size, tokenizer.eos_id) == (420, 422, 423, 420)
    assert tokenizer.decode(ids) == "a<|im|>"
    assert tokenizer.decode([421, *ids], skip_special=False) == "<|im_start|> a<|im|>"


def test_a_lone_surrogate_is_the_client_s_fault(tokenizer):
    with pytest.raises(InvalidTextError, match=r"lone surrogate \(U\+D83D\) at character 2"):
        tokenizer.encode("ab\ud83d")
    with pytest.raises(InvalidTextError, match="lone surrogate"):
        tokenizer.encode_up_to("ab\ud83d", 9)


def test_facts(tokenizer, library):
    is_sentencepiece = isinstance(library, sentencepiece.SentencePieceProcessor)
    assert tokenizer.vocab_size == len(library if is_sentencepiece else library.get_vocab())
    assert tokenizer.special_ids >= {1, 2}
    assert not tokenizer.has_chat_template


def test_token_text_shows_one_token_as_it_stands_in_a_text(tokenizer_kinds_with_bytes):
    tokenizer = tokenizer_kinds_with_bytes
    ids = tokenizer.encode("The quick fox", add_special=False)
    assert "".join(map(tokenizer.token_text, ids)).removeprefix(" ") == "The quick fox"
    assert tokenizer.token_text(2) == "</s>"
    assert tokenizer.token_text(tokenizer.vocab_size) == ""


def test_token_bytes_join_to_characters(tokenizer_kinds_with_bytes):
    tokenizer = tokenizer_kinds_with_bytes
    ids = tokenizer.encode("🙈", add_special=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().strip() == "🙈"
    assert tokenizer.token_text(ids[-1]) == "\ufffd"


def test_added_tokens_of_a_byte_level_tokenizer_are_meant_as_written(tokenizer_files, tmp_path):
    content = json.loads(tokenizer_files["byte_level"].read_text(encoding="utf-8"))
    token = {"id": 900, "content": DEEPSEEK_STYLE, "special": False, "normalized": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": False}
    content["added_tokens"].append(token)
    content["model"]["vocab"][DEEPSEEK_STYLE] = 900
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 901
    assert tokenizer.decode(tokenizer.encode(f"a{DEEPSEEK_STYLE}b")) == f"a{DEEPSEEK_STYLE}b"


def test_a_named_token_is_special_even_if_the_file_does_not_say_so(tokenizer_files, tmp_path):
    content = json.loads(tokenizer_files["byte_level"].read_text(encoding="utf-8"))
    content["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert 2 not in load_tokenizer(tmp_path).encode("a</s>b")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.special_ids, tokenizer.vocab_size) == ({2}, load_tokenizer(tmp_path).vocab_size)
    assert tokenizer.encode("a</s>b", add_special=False).count(2) == 1
    assert tokenizer.decode([2]) == ""


def test_cutting_and_padding_of_the_training_are_switched_off(tokenizer_files, tmp_path):
    content = json.loads(tokenizer_files["byte_level"].read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    text = "much longer than three tokens"
    ids = load_tokenizer(tmp_path).encode(text)
    assert ids == load_tokenizer(tokenizer_files["byte_level"]).encode(text)

"""What is wrong with a path or a file is said before anything is served."""

from __future__ import annotations

import json
import shutil

import pytest

from model.errors import TokenizerError
from model.tokenizer import load_tokenizer


@pytest.fixture
def folder(tokenizer_files, tmp_path):
    """A folder with a good tokenizer.json to spoil."""
    shutil.copy(tokenizer_files["byte_level"], tmp_path / "tokenizer.json")
    return tmp_path


def write_json(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def edit_tokenizer(folder, **changes):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(folder, "tokenizer.json", content | changes)


def refuses(path, match, **options):
    with pytest.raises(TokenizerError, match=match):
        load_tokenizer(path, **options)


def test_the_content_tells_the_kind_not_the_name(tokenizer_files, tmp_path):
    for kind in ("byte_level", "llama"):
        shutil.copy(tokenizer_files[kind], tmp_path / kind)
        assert load_tokenizer(tmp_path / kind).decode([2]) == ""


def test_a_folder_with_both_files_gives_the_json(folder, tokenizer_files):
    shutil.copy(tokenizer_files["llama"], folder / "tokenizer.model")
    assert load_tokenizer(folder).name.endswith("tokenizer.json")


def test_missing(tmp_path):
    refuses(tmp_path / "nowhere", "there is no tokenizer at .*nowhere; give a tokenizer.json")
    refuses(tmp_path, "has neither a tokenizer.json nor a tokenizer.model")


def test_empty_file(folder):
    (folder / "tokenizer.json").write_bytes(b"")
    refuses(folder, "is empty")


def test_git_lfs_pointer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    refuses(folder, "Git LFS pointer")


def test_truncated_json(folder):
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text[: len(text) // 2], encoding="utf-8")
    refuses(folder, "is not valid JSON")


def test_json_of_something_else(folder):
    write_json(folder, "tokenizer.json", {"vocab": {}})
    refuses(folder, "is not a tokenizer.json")


def test_json_list(folder):
    (folder / "tokenizer.json").write_text("[1]")
    refuses(folder / "tokenizer.json", "is not a SentencePiece model")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_truncated_sentencepiece_model(share, tokenizer_files, tmp_path):
    data = tokenizer_files["llama"].read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(data[: int(len(data) * share)])
    refuses(tmp_path, "is not a SentencePiece model")


def test_not_utf8(folder):
    (folder / "tokenizer_config.json").write_bytes(b'{"a": "\xff"}')
    refuses(folder, "tokenizer_config.json is not UTF-8")


@pytest.mark.parametrize(
    ("decoder", "match"),
    [
        ({"type": "WordPiece", "prefix": "##", "cleanup": True}, r"unsupported decoder \(WordPiece\)"),
        (None, r"unsupported decoder \(none at all\)"),
        ({"type": "Replace", "pattern": {"Regex": "x+"}, "content": ""}, "regular expression"),
        ({"type": "Strip", "content": " ", "start": 0, "stop": 1}, "only for leading spaces"),
    ],
)
def test_unsupported_decoder(folder, decoder, match):
    edit_tokenizer(folder, decoder=decoder)
    refuses(folder, match)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ([], "must hold a JSON object, not list"),
        ({"add_bos_token": "yes"}, "add_bos_token must be true or false, not 'yes'"),
        ({"bos_token": "<nope>"}, "bos_token is '<nope>', but .* has no such token"),
        ({"added_tokens_decoder": {"x": 1}}, "added_tokens_decoder must map ids"),
        ({"chat_template": 3}, "chat_template must be a string"),
        ({"chat_template": [{"name": "rag", "template": ""}]}, "has the name 'default'"),
        ({"chat_template": "{% if %}"}, "not valid Jinja, line 1"),
        ({"response_template": []}, "response_template must be an object"),
    ],
)
@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_unusable_configuration(kind, config, match, tokenizer_files, tmp_path):
    shutil.copy(tokenizer_files[kind], tmp_path)
    write_json(tmp_path, "tokenizer_config.json", config)
    refuses(tmp_path, match)


def test_an_end_token_that_is_wanted_but_missing(folder):
    write_json(folder, "tokenizer_config.json", {"add_eos_token": True})
    refuses(folder, "add_eos_token is true, but there is no eos_token; add one")


def test_vocabulary_larger_than_the_model_s(folder):
    size = load_tokenizer(folder).vocab_size
    assert load_tokenizer(folder, model_vocab_size=size).vocab_size == size
    refuses(folder, rf"ids up to {size - 1}.*{size - 1} entries", model_vocab_size=size - 1)


def test_end_ids_come_from_the_generation_configuration_too(folder):
    write_json(folder, "config.json", {"bos_token_id": 1, "eos_token_id": 2})
    assert load_tokenizer(folder).eos_ids == {2}
    write_json(folder, "generation_config.json", {"eos_token_id": [2, 0, 99999]})
    write_json(folder, "tokenizer_config.json", {"eos_token": "<|eot|>"})
    tokenizer = load_tokenizer(folder)
    eot = tokenizer.encode("<|eot|>", add_special=False)[0]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (1, eot, {0, 2, eot})


def test_special_tokens_map_is_used_where_the_configuration_is_silent(folder):
    write_json(folder, "special_tokens_map.json", {"eos_token": "</s>", "bos_token": {"content": "<s>"}})
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.special.pad_id) == (1, 2, None)


@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_the_response_template_comes_from_the_configuration(kind, tokenizer_files, tmp_path):
    shutil.copy(tokenizer_files[kind], tmp_path)
    assert load_tokenizer(tmp_path).response_template is None
    write_json(tmp_path, "tokenizer_config.json", {"response_template": {"fields": {}}})
    assert load_tokenizer(tmp_path).response_template == {"fields": {}}


@pytest.mark.parametrize(
    ("kind", "added"), [("byte_level", "<tool>"), ("byte_level", "<|eot|>"), ("llama", "<call>")]
)
def test_the_id_of_an_added_token(kind, added, tokenizer_files, tmp_path):
    """Special or not; an ordinary token has none."""
    shutil.copy(tokenizer_files[kind], tmp_path)
    write_json(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": {"500": {"content": "<call>"}}})
    tokenizer = load_tokenizer(tmp_path)
    assert [tokenizer.added_token_id(added)] == tokenizer.encode(added, add_special=False)
    assert tokenizer.added_token_id("a") is None
    assert tokenizer.added_token_id(added[1:]) is None

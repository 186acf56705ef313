"""The files beside a tokenizer's vocabulary: tokenizer_config.json and other small files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import TokenizerError
from model.tokenizer.chat import ChatTemplate

_TOKEN_FLAGS = ("special", "normalized", "single_word", "lstrip", "rstrip")
_DEFAULT, _TOOLS = "default", "tool_use"  # names of chat templates
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for in the text before anything else."""

    content: str
    special: bool
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """None means that no file says anything about it."""

    named_tokens: Mapping[str, str]  # "bos_token" → "<s>"
    named_ids: Mapping[str, int]  # "bos_token" → 1
    end_ids: frozenset[int]  # all ids that generation_config.json ends at
    added_tokens: Mapping[int, AddedToken]
    add_bos: bool | None
    add_eos: bool | None
    chat_template: ChatTemplate | None
    class_name: str | None = None  # in transformers
    response_template: Mapping[str, Any] | None = None  # what answers consist of, as transformers >= 5.13 has it


def read_settings(folder: Path, chat_template: Path | None = None) -> TokenizerSettings:
    """Read what there is; every file is optional. Raises TokenizerError for one that is unusable.

    ``chat_template`` is a file in place of the template in the folder.
    """
    config = read_optional_json(folder / "tokenizer_config.json")
    generation = {
        **read_optional_json(folder / "config.json"),
        **read_optional_json(folder / "generation_config.json"),
    }
    tokens = {**read_optional_json(folder / "special_tokens_map.json"), **config}
    named_tokens = {name: content for name in TOKEN_NAMES if (content := _token_content(tokens.get(name)))}
    ends = _ids(generation.get("eos_token_id"))
    return TokenizerSettings(
        named_tokens=named_tokens,
        named_ids={name: ids[0] for name in TOKEN_NAMES if (ids := _ids(generation.get(f"{name}_id")))},
        end_ids=frozenset(ends),
        added_tokens=_added_tokens(config),
        add_bos=_flag(config, "add_bos_token"),
        add_eos=_flag(config, "add_eos_token"),
        response_template=_response_template(config),
        class_name=class_name if isinstance(class_name := config.get("tokenizer_class"), str) else None,
        chat_template=_chat_template(config, folder, named_tokens, chat_template),
    )


def added_ids(wanted: bool | None, name: str, token_id: int | None, *, default: bool) -> list[int]:
    """What BOS or EOS puts around a text: one id or none. ``wanted`` is what the files say, None if nothing.

    Raises TokenizerError when the files want a token that they do not have.
    """
    if wanted and token_id is None:
        raise TokenizerError(f"tokenizer_config.json: add_{name} is true, but there is no {name}; add one")
    if token_id is None or not (default if wanted is None else wanted):
        return []
    return [token_id]


def no_such_token(name: str, content: str, file: str) -> TokenizerError:
    """To be raised for a named token that the vocabulary in this file lacks."""
    return TokenizerError(
        f"tokenizer_config.json says that {name} is {content!r}, but {file} has no such token; "
        "use the two files of the same model"
    )


def read_optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises TokenizerError that names the file and the place."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}: {error.msg}"
        raise TokenizerError(f"{path} is not valid JSON ({place}); if it is truncated, download it again") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def read_text(path: Path) -> str:
    """Raises TokenizerError that names the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 text (byte {error.start}); download it again") from error


def _token_content(value: object) -> str | None:
    """Files name a token by its text or by an object that has the text as its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]


def _flag(config: Mapping[str, Any], key: str) -> bool | None:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise TokenizerError(f"tokenizer_config.json: {key} must be true or false, not {value!r}")
    return value


def _added_tokens(config: Mapping[str, Any]) -> dict[int, AddedToken]:
    table = config.get("added_tokens_decoder") or {}
    try:
        return {
            int(token_id): AddedToken(
                str(token["content"]), **{name: bool(token.get(name, False)) for name in _TOKEN_FLAGS}
            )
            for token_id, token in table.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(
            "tokenizer_config.json: added_tokens_decoder must map ids to objects with a 'content', "
            'as in {"3": {"content": "<|user|>", "special": true}}'
        ) from error


def _response_template(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    template = config.get("response_template")
    if template is not None and not isinstance(template, dict):
        raise TokenizerError(
            "tokenizer_config.json: response_template must be an object with 'start_anchor' and 'fields'"
        )
    return template


def _chat_template(
    config: Mapping[str, Any], folder: Path, named_tokens: Mapping[str, str], given: Path | None
) -> ChatTemplate | None:
    """The operator's file ``given``, else what the folder holds; one named tool_use is for chats with tools."""
    sources = _named_sources(config, folder) if given is None else {_DEFAULT: (read_text(given), given.name)}
    if given is not None:
        sources |= _additional(given.parent)
    if not sources:
        return None
    if _DEFAULT not in sources:
        names, origin = ", ".join(sorted(sources)), next(iter(sources.values()))[1]
        raise TokenizerError(
            f"{origin}: there are chat templates named {names}, of which none has the name 'default'; add it as "
            "chat_template.jinja"
        )
    tool_use = ChatTemplate(sources[_TOOLS][0], named_tokens, sources[_TOOLS][1]) if _TOOLS in sources else None
    return ChatTemplate(sources[_DEFAULT][0], named_tokens, sources[_DEFAULT][1], tool_use)


def _named_sources(config: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, str]]:
    """Name to text and file. What has a file of its own goes before what tokenizer_config.json says, and that before
    what a processor's chat_template.json does."""
    if (own := folder / "chat_template.jinja").exists():
        return {**_additional(folder), _DEFAULT: (read_text(own), own.name)}
    older = "chat_template.json"
    places = ((config, "tokenizer_config.json"), (read_optional_json(folder / older), older))
    found = next(((each["chat_template"], name) for each, name in places if each.get("chat_template")), None)
    named = {} if found is None else {key: (text, found[1]) for key, text in _by_name(*found).items()}
    return named | _additional(folder)


def _additional(folder: Path) -> dict[str, tuple[str, str]]:
    files = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    return {file.stem: (read_text(file), file.name) for file in files}


def _by_name(template: object, file: str) -> dict[str, str]:
    if isinstance(template, str):
        return {_DEFAULT: template}
    entries = template if isinstance(template, list) else []
    pairs = [(entry.get("name"), entry.get("template")) for entry in entries if isinstance(entry, dict)]
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if not named:
        raise TokenizerError(
            f"{file}: chat_template must be a string, or a list of objects with 'name' and 'template' of which one "
            "has the name 'default'"
        )
    return named

"""API keys: where they may come from, and every way to get that wrong. No message ever holds a key."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.config import load_configuration
from pipeline.launcher.api_keys import MAX_KEYS, KeysError, key_file_warning, load_api_keys, without_keys
from pipeline.wire.api_key import ApiKey

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture
def keys(write, tmp_path):
    """Digests that a key file with this content gives, and this environment."""

    def load(content=None, mode=0o600, **environment):
        settings = "pipeline: {model_dir: model}"
        if content is not None:
            path = tmp_path / "keys"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(mode)
            settings = "pipeline: {model_dir: model, api_keys_file: keys}"
        return load_api_keys(load_configuration(write(settings)), environment)

    return load


def digests(*names):
    return tuple(ApiKey(hashlib.sha256(name.encode()).hexdigest()) for name in names)


def test_without_keys_none_is_needed(keys):
    assert keys() == ()


def test_from_the_environment(keys):
    assert keys(RINGSERVE_API_KEY=KEY) == digests(KEY)
    assert keys(RINGSERVE_API_KEYS=f"one, {KEY},,two,") == digests("one", KEY, "two")
    assert keys(RINGSERVE_API_KEY="a,b", RINGSERVE_API_KEYS="a,b,a") == digests("a,b", "a", "b")


def test_from_a_file_and_the_environment(keys):
    content = f"# whose keys these are\n\n{KEY}   # alice\r\n  two#2\n#three\n"
    assert keys(content, RINGSERVE_API_KEY="one") == digests("one", KEY, "two#2")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (f"# a comment\n{KEY} and more\n", "keys:2: behind an API key may stand, once each: weight=N, priority=N"),
        (f"{KEY} weight=1 weight=2", "keys:1: behind"),
        (f"{KEY} weight=", "keys:1: weight is wrong; expected a number from 0.01 to 100"),
        (f"{KEY} weight=nan", "keys:1: weight is wrong"),
        (f"{KEY} weight=0", "keys:1: weight is wrong"),
        (f"{KEY} concurrent=0", "keys:1: concurrent is wrong; expected an integer from 1 to"),
        (f"{KEY} priority=1.5", "keys:1: priority is wrong; expected an integer from -1000 to 1000"),
        (f"x\n{KEY} {KEY}", "keys:2: behind"),
        (f"{KEY}é", "keys:1: an API key has characters"),
        (KEY.encode() + b"\xff", "keys:1"),
        (f"{KEY}\0", "keys:1"),
        ("x" * 1025, "keys:1"),
        ("# only comments\n", "keys holds no API key"),
        ("", "keys holds no API key"),
        ("#" * (1 << 20) + KEY, "larger than"),
        ("\n".join(f"key-{i}" for i in range(MAX_KEYS + 1)), f"at most {MAX_KEYS}"),
    ],
)
def test_a_file_that_cannot_be_used(keys, content, place):
    with pytest.raises(KeysError, match=place) as caught:
        keys(content)
    assert "secret" not in str(caught.value)


def test_what_a_key_may_do(keys):
    content = (
        f"{KEY}\tweight=2.5  priority=-3 concurrent=8 requests_per_minute=60 tokens_per_minute=90000 # alice\n"
        "two operator\nthree#weight=2\n"
    )
    alice, two, three = (one.digest for one in digests(KEY, "two", "three#weight=2"))
    loaded = keys(content, RINGSERVE_API_KEY=KEY)
    assert loaded == (ApiKey(alice, 2.5, -3, 8, 60, 90000), ApiKey(two, operator=True), ApiKey(three))
    assert [key.number for key in loaded] == [int(key.digest[:12], 16) for key in loaded]


def test_as_many_keys_as_there_may_be(keys):
    assert len(keys("\n".join(f"key-{i}" for i in range(MAX_KEYS)))) == MAX_KEYS
    assert keys("x" * 1024) == digests("x" * 1024)


@pytest.mark.parametrize("value", ["", " ", ",,"])
def test_a_variable_that_was_not_filled_in(keys, value):
    with pytest.raises(KeysError, match="RINGSERVE_API_KEYS holds no API key"):
        keys(RINGSERVE_API_KEYS=value)


def test_a_variable_with_an_impossible_key(keys):
    with pytest.raises(KeysError, match="RINGSERVE_API_KEY: an API key has characters") as caught:
        keys(RINGSERVE_API_KEY="se cret")
    assert "cret" not in str(caught.value)


def test_a_file_that_is_not_there(write):
    config = load_configuration(write("pipeline: {model_dir: model, api_keys_file: absent}"))
    with pytest.raises(KeysError, match="absent can't be read: No such file"):
        load_api_keys(config, {})


def test_a_file_that_others_may_write(keys):
    with pytest.raises(KeysError, match=r"is writable by all users.*chmod 600"):
        keys(KEY, mode=0o602)


def test_a_file_that_others_may_read_is_worth_a_warning(keys, tmp_path):
    assert keys(KEY, mode=0o644) == digests(KEY)
    assert "is readable by all users (mode 0644)" in key_file_warning(tmp_path / "keys")
    keys(KEY, mode=0o640)
    assert key_file_warning(tmp_path / "keys") is None
    assert key_file_warning(None) is None


def test_stages_get_an_environment_without_keys():
    assert without_keys({"RINGSERVE_API_KEY": KEY, "RINGSERVE_API_KEYS": KEY, "HOME": "/"}) == {"HOME": "/"}

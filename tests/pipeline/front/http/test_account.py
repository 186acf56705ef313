"""Limits of an API key, by a clock that stands until it is moved."""

import pytest

from pipeline.front.http.access import ApiKeys
from pipeline.front.http.account import Account, Bucket, duration
from pipeline.front.http.errors import ApiError
from pipeline.wire.api_key import ApiKey


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def account(clock):
    return lambda **rules: Account(ApiKey("ab" * 32, **rules), clock)


def refusal(action, *arguments):
    with pytest.raises(ApiError) as caught:
        action(*arguments)
    error = caught.value
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    return error.kind, int(dict(error.headers)[b"retry-after"])


def test_a_bucket_fills_up_evenly(clock):
    bucket = Bucket(60, clock)
    bucket.take(90)
    assert (bucket.level, bucket.seconds_until(1), bucket.seconds_until(1000)) == (-30, 31, 90)
    clock.now = 45.0
    assert bucket.level == 15
    clock.now = 1e6
    assert bucket.level == 60
    bucket.take(10)
    bucket.resize(20)
    assert bucket.level == 10


def test_without_limits_nothing_is_said_or_refused(account):
    one = account()
    for _ in range(1000):
        one.begin()
        one.reserve(1 << 30)
    assert one.headers == []


def test_requests_at_a_time(account):
    one = account(concurrent=2)
    one.begin()
    assert dict(one.headers) == {
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"0ms",
    }
    one.begin()
    assert refusal(one.begin) == ("requests", 1)
    one.end()
    one.begin()


def test_requests_per_minute(account, clock):
    one = account(requests_per_minute=6, concurrent=100)
    for _ in range(6):
        one.begin()
        one.end()
    assert refusal(one.begin) == ("requests", 10)
    told = dict(one.headers)
    assert (told[b"x-ratelimit-remaining-requests"], told[b"x-ratelimit-reset-requests"]) == (b"0", b"1m0s")
    clock.now = 9.9
    assert refusal(one.begin) == ("requests", 1)
    clock.now = 10.1
    one.begin()


def test_tokens_are_reserved_and_settled(account, clock):
    one = account(tokens_per_minute=600)
    one.reserve(400)
    assert refusal(one.reserve, 300) == ("tokens", 10)
    one.settle(400, 100)
    assert dict(one.headers)[b"x-ratelimit-remaining-tokens"] == b"500"
    one.reserve(300)
    one.settle(300, 900)  # more than was expected
    told = dict(one.headers)
    assert (told[b"x-ratelimit-remaining-tokens"], told[b"x-ratelimit-reset-tokens"]) == (b"0", b"1m40s")
    assert refusal(one.reserve, 0) == ("tokens", 40)
    clock.now = 40.0
    one.reserve(0)


def test_a_request_beyond_the_limit_is_served_when_nothing_else_was(account, clock):
    one = account(tokens_per_minute=60)
    one.reserve(6000)
    assert refusal(one.reserve, 6000) == ("tokens", 6000)
    clock.now = 6000.0
    one.reserve(6000)


def test_a_reload_changes_limits_and_keeps_what_was_used():
    first, second = ApiKey("ab" * 32, concurrent=1), ApiKey("cd" * 32)
    keys = ApiKeys([first, second])
    account = keys._accounts[bytes.fromhex(first.digest)]
    account.begin()
    keys.replace([second, first._replace(concurrent=2, tokens_per_minute=5)])
    assert keys._accounts[bytes.fromhex(first.digest)] is account
    account.begin()
    assert refusal(account.begin) == ("requests", 1)
    account.reserve(5)
    assert refusal(account.reserve, 5)[0] == "tokens"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (6.2, "7s"), (60, "1m0s"), (359.5, "6m0s")]
)
def test_durations_as_openai_writes_them(seconds, text):
    assert duration(seconds) == text

"""10^6 messages through small rings with every byte checked, and that a wrong byte would be noticed.

The full size, 10^8 messages, is `make stress-ipc`.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import ipc
from scripts.verify.stress import deaths, records
from scripts.verify.stress.options import Options
from scripts.verify.stress.slots import WORDS, Content

SCRIPT = "scripts.verify.stress"


@pytest.mark.parametrize("kind", ["slot", "byte", "broadcast"])
def test_a_million_messages(kind):
    command = [sys.executable, "-m", SCRIPT, "--messages", "1000000", "--ring", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: ok, 1,000,000 messages, every byte checked" in done.stdout
    assert " 0 lost" in done.stdout
    parks = int(done.stdout.split(" parks")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert parks > 0, "nobody ever slept: no wake-up was tested"


@pytest.mark.parametrize("rule", ["evict", "end"])
def test_deaths_of_readers(rule):
    command = [sys.executable, "-m", SCRIPT, "--messages", "200000", "--ring", rule]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{rule}: ok, 2 deaths, " in done.stdout
    assert "every byte checked, 0 lost" in done.stdout


def test_readers_that_saw_too_much_or_too_little_are_noticed():
    """What a ring would show that passes over the dead though it should end."""
    with ipc.SlotRing.create("test", slots=4, slot_size=64, consumers=3, on_death="end") as ring:
        made = ring.snapshot()
    options, ended = Options("end", 0, slots=4), replace(made, evicted=(deaths.VICTIM,))
    deaths.check(ended, options, 4, [4, 4])
    for snapshot, sent, seen, message in (
        (ended, 5, [5, 5], "message 5 was sent, but the dead reader stopped at 0"),
        (ended, 4, [4, 3], r"4 messages were sent, the readers saw \[4, 3\]"),
        (made, 4, [4, 4], r"the producer noticed the death of \(\)"),
    ):
        with pytest.raises(deaths.StressError, match=message):
            deaths.check(snapshot, options, sent, seen)


def test_a_wrong_word_is_noticed():
    content = Content(16)
    words = np.frombuffer(content.bytes_of(1000, 16), np.uint64).copy()
    content.check(1000, words)
    words[5 * WORDS + 3] ^= np.uint64(1 << 40)
    with pytest.raises(ValueError, match="message 1005, word 3"):
        content.check(1000, words)


def test_a_repeated_message_is_noticed():
    content = Content(16)
    with pytest.raises(ValueError, match="message 1001"):
        content.check(1001, np.frombuffer(content.bytes_of(1000, 16), np.uint64))


def test_a_wrong_record_is_noticed():
    made = records.make_records(seed=1, most=48)
    first = records.CYCLE - 10  # the batch goes over the end of the cycle
    got = made[first : first + 20]
    records._check(first, got, made)
    changed = next(i for i in range(5, 20) if got[i])
    got[changed] = bytes([got[changed][0] ^ 1]) + got[changed][1:]
    with pytest.raises(ValueError, match=f"record {first + changed}:"):
        records._check(first, got, made)

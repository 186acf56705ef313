"""What is in the journal for the next front, and how it stays small."""

from __future__ import annotations

import itertools
import os

import pytest

import ipc
from model.sampling import SamplingParams
from pipeline.front.delivery.kept.journal import (
    Begun,
    Ended,
    Found,
    Journal,
    Opened,
    Origin,
    Tried,
    renumbered,
    submits_of,
)
from pipeline.wire.delta import Delta, FinishReason, delta_head
from pipeline.wire.request import Choice, Request, Submit

HALF = 1 << 21


@pytest.fixture
def fd():
    made = ipc.make_log(HALF)
    yield made
    os.close(made)


@pytest.fixture
def kept():
    """Writers of what is kept."""
    return []


@pytest.fixture
def journal(fd, kept):
    made = Journal(fd, lambda: [writer.owner for writer in kept], lambda: None, 1 << 16)
    yield made
    made.close()


def opened(seed, *requests):
    submit = Submit.of([Choice(number, 7) for number in requests], "a", Request(SamplingParams(), 20)).pack()
    return Opened(seed, 1, 1, "/v1/completions", (), "", b"{}", 20.0, (submit,))


def delta(request, index):
    return Delta(request, 0, index, 9, 0.0, FinishReason.NONE, "word").pack()


def large(size):
    """No record that would be decoded."""
    return b"\1" * size


def read(fd):
    journal = Journal(fd, list, lambda: None, 1 << 16)
    try:
        return journal.read()
    finally:
        journal.close()


def test_answers_of_several_texts_whose_records_interleave(fd, journal):
    first, other = journal.writer(), journal.writer()
    first.append([opened("first", 1, 2).pack()])
    other.append([opened("other", 3).pack()])
    records = {first: [], other: []}
    texts = [(first, 1), (other, 3), (first, 2), (first, 2), (other, 3), (first, 1)]
    for number, (writer, request) in enumerate(texts):
        both = [Begun(request, 5, 0).pack(), delta(request, number), Origin(request, number, "w").pack()]
        writer.append(both)
        records[writer] += both
    other.append([Ended().pack()])
    found = read(fd)
    assert [(one.opened.seed, one.ended) for one in found] == [("first", None), ("other", Ended())]
    assert [one.records for one in found] == list(records.values())
    again = renumbered(found[0], itertools.count(100).__next__)
    assert [choice.request for one in submits_of(again.opened) for choice in one.choices] == [100, 101]
    assert [delta_head(one)[0] for one in again.records[1::3]] == [100, 101, 101, 100]
    assert len(again.records) == 12


def test_the_next_one_writes_it_anew(fd, journal):
    """With numbers of its own, which say nothing of what was there."""
    for seed in ("dropped", "kept"):
        journal.writer().append([opened(seed, 1).pack(), delta(1, 1), Tried().pack()])
    after = Journal(fd, list, lambda: None, 1 << 16)
    dropped, kept = after.read()
    assert (dropped.tried, kept.tried) == (False, True)
    writer = after.writer()
    after.rewrite([(writer, kept)])
    assert (writer.owner, after.written) == (1, writer.size)
    writer.append([delta(1, 2)])
    after.close()
    assert read(fd) == [Found(kept.opened, [delta(1, 1), delta(1, 2)])]


def test_it_is_tidied_when_most_of_it_is_dropped(fd, journal, kept):
    kept += [journal.writer() for _ in range(40)]
    for number, writer in enumerate(kept):
        writer.append([opened(str(number), number + 1).pack(), large(1 << 15)])
    while len(kept) > 1:
        before = journal._log.used
        journal.forget(kept.pop(0))
        assert journal.written == sum(writer.size for writer in kept)
        assert (journal._log.used < before) == (len(kept) == 20)  # afterwards there is too little of it
        assert [one.opened.seed for one in read(fd)] == [str(39 - len(kept) + 1 + n) for n in range(len(kept))]
    journal.forget(kept.pop())
    assert (journal.written, journal._log.used, read(fd)) == (0, 0, [])


def test_without_room_only_what_is_kept_stays(fd, journal, kept, caplog):
    gone, stays = journal.writer(), journal.writer()
    kept.append(stays)
    stays.append([opened("stays", 1).pack()])
    gone.append([opened("gone", 2).pack(), large(HALF * 2 // 5)])
    journal.forget(gone)
    stays.append([delta(1, 1), large(HALF * 2 // 5)])
    stays.append([delta(1, 2), large(HALF * 2 // 5)])
    assert (journal.written, journal._log.used) == (stays.size, stays.size)
    assert not caplog.records
    for _ in range(3):
        kept.append(journal.writer())
        kept[-1].append([opened("more", 3).pack(), large(HALF // 2)])
        kept[-1].append([Ended().pack()])
    assert ["no room" in record.message for record in caplog.records] == [True]
    for writer in kept[1:]:
        journal.forget(writer)
    (found,) = read(fd)
    assert (found.opened.seed, len(found.records)) == ("stays", 4)


def test_a_dropped_answer_is_dropped_though_some_of_it_had_no_room(fd, journal, kept):
    full, other = journal.writer(), journal.writer()
    kept += [full, other]
    other.append([opened("other", 2).pack()])
    full.append([opened("full", 1).pack(), delta(1, 1)])
    full.append([large(HALF)])
    full.append([delta(1, 3), Ended().pack()])
    _, found = read(fd)
    assert (found.records, found.ended) == ([delta(1, 1)], None)  # it is generated from there on, and no gap is in it
    kept.remove(full)
    journal.forget(full)
    assert [one.opened.seed for one in read(fd)] == ["other"]


def test_it_says_when_it_has_grown(fd):
    told = []
    journal = Journal(fd, list, lambda: told.append(journal.written), 100)
    writer = journal.writer()
    for _ in range(4):
        writer.append([large(38)])
    assert told == [150]
    journal.watch()
    writer.append([large(38)])
    assert told == [150]
    journal.watch(closely=True)
    writer.append([large(38)])
    assert told == [150, 300]
    journal.close()

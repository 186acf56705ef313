"""The inspector finds every live ring, also when its name is gone, and touches nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ipc
from ipc import inspect
from ipc.header import header_table


def test_it_finds_an_unlinked_ring_through_its_owners(slot_ring, spawn):
    ring = slot_ring("inspected", slots=8)
    producer = ring.producer(label="main")
    child = spawn("hold_until_told", {"ring": ring}, kind="consumer")
    child.expect("ready")
    name = ring.segment.name.lstrip("/")
    ring.unlink_when_attached(5)
    for _ in range(3):
        producer.write(bytes(64))
    before = bytes(ring.segment.map)
    done = subprocess.run([sys.executable, "-m", "ipc.inspect", "--json"], capture_output=True, text=True, check=True)
    assert bytes(ring.segment.map) == before
    (found,) = [entry for entry in json.loads(done.stdout) if entry["name"] == name]
    assert not found["linked"]
    assert child.pid in found["pids"]
    assert found["ring"]["producer"] | {"counters": None} == {
        "role": "producer", "label": "main", "pid": os.getpid(),
        "alive": True, "state": "attached", "waiting": False, "index": 3, "counters": None,
    }  # fmt: skip
    (consumer,) = found["ring"]["consumers"]
    assert (consumer["label"], consumer["pid"], consumer["index"]) == ("holder", child.pid, 0)


def test_the_text_says_who_how_full_and_who_is_dead(slot_ring, spawn):
    ring = slot_ring("inspected", slots=8)
    producer = ring.producer(label="main")
    child = spawn("hold_until_told", {"ring": ring}, kind="consumer")
    child.expect("ready")
    for _ in range(3):
        producer.write(bytes(64))
    child.kill()
    done = subprocess.run([sys.executable, "-m", "ipc.inspect"], capture_output=True, text=True, check=True)
    assert "ring 'inspected': 8 slots of 64 B" in done.stdout
    assert "holds 3 of 8 (38 %)" in done.stdout
    assert f"pid {child.pid} DEAD" in done.stdout


def test_a_waiting_side_is_shown(slot_ring, spawn):
    ring = slot_ring("inspected")
    child = spawn("die", {"ring": ring}, side="consumer", point="inside a wait")
    child.expect("attached")
    child.expect("at the point")
    while not ring.snapshot().consumers[0].waiting:
        pass
    (found,) = [segment for segment in inspect.find_segments() if segment.name == ring.segment.name.lstrip("/")]
    assert " waiting " in inspect.format_segment(found)


def test_a_memfd_is_found_through_its_owners(slot_ring, spawn):
    ring = slot_ring("inspected", slots=8, backing=ipc.Backing.MEMFD, consumers=2, on_death="end")
    producer = ring.producer(label="main")
    child = spawn("hold_until_told", {"ring": ring}, kind="consumer")
    child.expect("ready")
    before = bytes(ring.segment.map)
    (found,) = [s for s in inspect.find_segments() if f"ringserve-inspected-{os.getpid()}-" in s.name]
    assert bytes(ring.segment.map) == before
    assert found.memfd
    assert not found.linked
    assert {os.getpid(), child.pid} <= set(found.pids)
    assert " memfd\n" in inspect.format_segment(found)
    child.kill()
    with pytest.raises(ipc.PeerDied):
        producer.check_peer()
    (found,) = [s for s in inspect.find_segments() if f"ringserve-inspected-{os.getpid()}-" in s.name]
    assert "dead, which ended the ring" in inspect.format_segment(found)


def test_what_is_not_a_ring_is_said_so():
    segment = ipc.Segment.create("plain", 4096)
    try:
        (found,) = [s for s in inspect.find_segments() if s.name == segment.name.lstrip("/")]
        assert found.ring is None
        assert inspect.format_segment(found).endswith("not a ring")
    finally:
        segment.unlink()
        segment.close()


def test_bad_options_are_refused():
    for value in ("0", "-1", "nan", "x"):
        done = subprocess.run(
            [sys.executable, "-m", "ipc.inspect", "--watch", value], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "--watch" in done.stderr


def test_the_header_table_lists_every_field():
    table = header_table()
    assert "| gate | 128 | `owner` | `uint64_t` |" in table
    assert "| fixed | 72 | `name` | `char`[32] |" in table


def test_the_documentation_shows_the_header_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    assert header_table() in page


def test_strange_things_in_the_directory_are_passed_over():
    folder, pipe = (Path(f"/dev/shm/ringserve-odd-{os.getpid()}-0{i}") for i in (1, 2))
    folder.mkdir()
    os.mkfifo(pipe)
    try:
        assert not [segment for segment in inspect.find_segments() if "-odd-" in segment.name]
    finally:
        folder.rmdir()
        pipe.unlink()

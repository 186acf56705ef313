"""Slot layouts: placement, hash, views, and what happens when two sides disagree."""

import numpy as np
import pytest

import ipc
from ipc import Field, Layout

STEP = Layout(
    "step",
    [
        Field("rows", "uint32", meaning="rows in use"),
        Field("input_ids", "int32", (20,), "token ids"),
        Field("scale", "float32", (2, 3), "per-row factors"),
        Field("name", "S5", (), "who"),
    ],
)


def test_fields_are_placed_at_multiples_of_64():
    assert STEP.offsets == (0, 64, 192, 256)
    assert STEP.size == 320


def test_golden_bytes():
    """Pins placement, byte order and element order. A change here breaks every other process."""
    memory = bytearray(STEP.size)
    views = STEP.views(memory)
    views.rows[...] = 0x01020304
    views.input_ids[:] = np.arange(20)
    views.scale[1, 0] = 1.5
    views.name[...] = b"abc"
    expected = bytearray(320)
    expected[0:4] = bytes([4, 3, 2, 1])
    expected[64:144] = b"".join(i.to_bytes(4, "little") for i in range(20))
    expected[192 + 12 : 192 + 16] = bytes([0, 0, 0xC0, 0x3F])
    expected[256:259] = b"abc"
    assert memory == expected


def test_golden_text_and_hash():
    assert STEP.text == "step 320\n0 rows u4 1\n64 input_ids i4 20\n192 scale f4 2x3\n256 name S5 1\n"
    assert STEP.hash.hex() == "ff623609c13dd0fa120e82d747e995cd"


def test_words_do_not_change_the_hash_but_everything_else_does():
    fields = [Field("a", "int32", (4,)), Field("b", "float32", (2,))]
    base = Layout("x", fields)
    assert Layout("x", [Field("a", "i4", (4,), "said better"), fields[1]]) == base
    others = [
        Layout("y", fields),
        Layout("x", fields[::-1]),
        Layout("x", fields[:1]),
        Layout("x", [Field("a", "uint32", (4,)), fields[1]]),
        Layout("x", [Field("a", "int32", (2, 2)), fields[1]]),
        Layout("x", [Field("c", "int32", (4,)), fields[1]]),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 7


def test_the_table_names_every_field():
    assert STEP.table().splitlines()[3] == "| 64 | `input_ids` | int32 | [20] | token ids |"


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "message"),
    [
        ("ids", "object", (), "can't be shared"),
        ("ids", ">i4", (), "can't be shared"),
        ("ids", "U4", (), "can't be shared"),
        ("ids", "S0", (), "can't be shared"),
        ("ids", "int32", (0,), "extent below 1"),
        ("Ids", "int32", (), "lower-case"),
        ("ids\n", "int32", (), "lower-case"),
    ],
)
def test_a_bad_field_is_refused(name, dtype, shape, message):
    with pytest.raises(ValueError, match=message):
        Field(name, dtype, shape)


def test_a_bad_layout_is_refused():
    with pytest.raises(ValueError, match="each name once"):
        Layout("x", [Field("a", "i4"), Field("a", "i4")])
    with pytest.raises(ValueError, match="at least one"):
        Layout("x", [])


def test_views_need_enough_memory():
    with pytest.raises(ValueError, match="needs 320 bytes, the buffer has 319"):
        STEP.views(bytearray(319))


def test_attaching_with_another_layout_shows_both(slot_ring):
    ring = slot_ring(slot_size=None, layout=STEP)
    other = Layout("step", [Field("rows", "uint32"), Field("input_ids", "int32", (40,))])
    with pytest.raises(ipc.LayoutMismatchError) as error:
        ipc.SlotRing.attach(ring.segment.name, layout=other)
    for layout in (STEP, other):
        assert layout.text.rstrip() in str(error.value)
    ipc.SlotRing.attach(ring.segment.name, layout=STEP).close()


def test_a_ring_without_a_layout_says_so(slot_ring):
    with pytest.raises(ipc.LayoutMismatchError, match=r"\(no layout\)"):
        ipc.SlotRing.attach(slot_ring().segment.name, layout=STEP)

"""Segments: exclusive, private, allocated, swept; and rings handed from process to process."""

import errno
import fcntl
import mmap
import multiprocessing
import os
import resource
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ipc
from ipc import limits
from ipc import segment as segment_module
from tests.ipc.children import fill, record_size
from tests.namespaces import with_shared_memory

SHM = Path("/dev/shm")


@pytest.fixture
def segment():
    made = ipc.Segment.create("test", 4096)
    yield made
    made.unlink()
    made.close()


def test_it_is_private_zeroed_and_fully_allocated(segment):
    info = (SHM / segment.name.lstrip("/")).stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_size == segment.size == 4096
    assert info.st_blocks * 512 >= 4096
    assert bytes(segment.map) == bytes(4096)
    assert segment.name.startswith(f"/ringserve-test-{os.getpid()}-")


def test_unlinking_keeps_the_memory(segment):
    segment.unlink()
    segment.unlink()
    segment.map[0] = 7
    assert segment.map[0] == 7
    assert not [path for path in SHM.iterdir() if f"-test-{os.getpid()}-" in path.name]


def test_descriptors_are_not_inherited_by_accident(segment):
    assert not os.get_inheritable(segment.fd)


@pytest.mark.parametrize("kind", ["", "a b", "../x", "A", "x" * 33, "a-b"])
def test_a_bad_kind_is_refused(kind):
    with pytest.raises(ValueError, match="lower-case"):
        ipc.Segment.create(kind, 64)


@pytest.mark.parametrize("size", [0, -1])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match="at least 1 byte"):
        ipc.Segment.create("test", size)


@pytest.fixture
def little_shm(monkeypatch):
    left = limits.MemoryLeft(3 << 20, "/dev/shm has 64 MiB in all", "enlarge it")
    monkeypatch.setattr(segment_module, "shared_memory_left", lambda _: left)


def test_too_little_shared_memory_says_what_to_do(little_shm):
    with pytest.raises(
        ipc.NoSpaceError, match=r"'logits' needs 4.0 MiB .* 3.0 MiB are free .*64 MiB in all\); enlarge"
    ):
        ipc.Segment.create("logits", 4 << 20, ipc.Backing.SHM)


def test_where_a_segment_finds_room(little_shm, monkeypatch):
    """To the byte: what fits exactly is in /dev/shm, what does not is a memfd, what fits nowhere is refused."""
    page = mmap.PAGESIZE
    assert ipc.backing_for(3 << 20) is ipc.backing_for((3 << 20) - page, 1) is ipc.Backing.SHM
    assert ipc.backing_for((3 << 20) + 1) is ipc.backing_for(3 << 20, 1) is ipc.Backing.MEMFD
    group = limits.MemoryLeft(5 << 20, "the control group's memory limit is 9 MiB", "raise it")
    monkeypatch.setattr(segment_module, "memory_left", lambda: group)
    assert ipc.backing_for(5 << 20) is ipc.Backing.MEMFD
    assert ipc.backing_for((5 << 20) + 1) is None
    with pytest.raises(ipc.NoSpaceError, match=r"needs 6.0 MiB .* 5.0 MiB are free \(the control.*9 MiB\); raise it"):
        ipc.Segment.create("logits", 6 << 20)


# ---- memfds ----------------------------------------------------------------------------------------------------


@pytest.fixture
def memfd():
    made = ipc.Segment.create("test", 5000, ipc.Backing.MEMFD)
    yield made
    made.close()


def test_a_memfd_is_private_zeroed_allocated_and_has_no_name(memfd):
    info = os.fstat(memfd.fd)
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_size == memfd.size == 5000
    assert info.st_blocks * 512 >= 5000
    assert bytes(memfd.map) == bytes(5000)
    assert memfd.name is None
    memfd.unlink()
    assert not os.get_inheritable(memfd.fd)
    assert not [path for path in SHM.iterdir() if f"-test-{os.getpid()}-" in path.name]


ROOM = """
    import ipc
    for slots in (8192, 16384):
        with ipc.SlotRing.create("test", slots=slots, slot_size=64) as ring:
            assert ring.segment.map[:8] == b"IPCRING1"
            print(ring.segment.name is None)
"""


@pytest.mark.parametrize(("options", "memfds"), [("size=1m", [False, True]), ("size=9m,ro", [True, True])])
def test_a_small_or_forbidden_directory_is_left_alone(options, memfds):
    """Rings of half a mebibyte and of one and a bit, in a real file system."""
    command = [*with_shared_memory(options), sys.executable, "-c", textwrap.dedent(ROOM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(memfd) for memfd in memfds]


@pytest.mark.parametrize("size", [0, 4096, 10_000])
def test_nobody_can_change_the_size_of_a_memfd(memfd, size):
    """So nobody can give the others a SIGBUS."""
    with pytest.raises(PermissionError):
        os.ftruncate(memfd.fd, size)
    with pytest.raises(PermissionError):  # nor undo that
        fcntl.fcntl(memfd.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    memfd.map[4999] = 1


def test_an_older_kernel_knows_fewer_flags(monkeypatch):
    """Before 6.3 a flag that hosts with vm.memfd_noexec=2 demand is an error."""
    real, asked = os.memfd_create, []

    def create(name, flags):
        asked.append(flags)
        if flags & ~(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", create)
    segment = ipc.Segment.create("test", 64, ipc.Backing.MEMFD)
    assert stat.S_IMODE(os.fstat(segment.fd).st_mode) == 0o600
    assert len(asked) == 2
    segment.close()


def test_a_memfd_that_is_forbidden_is_a_clear_error(monkeypatch):
    def create(name, flags):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", create)
    with pytest.raises(ipc.SegmentError, match=r"can't be made in memfd: .*Permission denied"):
        ipc.Segment.create("test", 64, ipc.Backing.MEMFD)


@pytest.mark.parametrize("kind", ["slots", "bytes"])
def test_a_ring_in_a_memfd_goes_to_a_subprocess_as_any_other(slot_ring, byte_ring, spawn, kind):
    if kind == "bytes":
        ring = byte_ring(backing=ipc.Backing.MEMFD)
        child = spawn("count_records", {"ring": ring})
    else:
        ring = slot_ring(backing=ipc.Backing.MEMFD)
        child = spawn("count_slots", {"ring": ring})
    producer = ring.producer()
    child.expect("ready")
    ring.unlink_when_attached(5)
    for i in range(100):
        producer.write(fill(i, record_size(i, producer.max_record) if kind == "bytes" else 64))
    producer.close()
    assert child.result()["count"] == 100


def test_more_than_the_machine_has_is_refused_before_anything_is_allocated():
    with pytest.raises(ipc.NoSpaceError, match="are free"):
        ipc.Segment.create("test", 1 << 50)


def test_running_out_while_allocating_is_the_same_error():
    """The file-size limit stands in for a /dev/shm that somebody else filled in the meantime."""
    code = """
        import resource, ipc
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        for backing in ipc.Backing:
            try: ipc.Segment.create("test", 2 << 20, backing)
            except ipc.NoSpaceError as error: print("refused", "needs 2.0 MiB" in str(error))
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert out.stdout == 2 * "refused True\n"


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer maps terabytes for itself")
def test_a_limit_of_address_space_is_named():
    """The kernel says ENOMEM, whatever it is short of."""
    code = """
        import resource, ipc
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
        try: ipc.Segment.create("test", 280 << 20)
        except ipc.NoSpaceError as error: print(error)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "needs 280.0 MiB" in out.stdout
    assert "this process's address space is limited to 300 MiB" in out.stdout
    assert "ulimit -v" in out.stdout


def test_attaching_to_nothing_is_a_clear_error(tmp_path):
    with pytest.raises(ipc.SegmentError, match="can't be opened: No such file"):
        ipc.SlotRing.attach("/ringserve-none-1-0")
    fd = os.open(tmp_path / "empty", os.O_RDWR | os.O_CREAT)
    with pytest.raises(ipc.SegmentError, match="empty"):
        ipc.Segment.from_fd(fd)


DEAD = """
    import ipc, os, sys
    ring = ipc.SlotRing.create("orphan", slots=2, slot_size=64)
    print(ring.segment.name, flush=True)
    os.kill(os.getpid(), 9)
"""


def orphan():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(DEAD)], capture_output=True, text=True, check=False)
    return done.stdout.strip().lstrip("/")


def test_the_sweep_takes_what_the_dead_left_and_nothing_else(segment):
    name = orphan()
    assert (SHM / name).exists()
    assert name in ipc.sweep_segments()
    assert not (SHM / name).exists()
    assert (SHM / segment.name.lstrip("/")).exists()


def test_the_sweep_leaves_an_orphan_that_somebody_still_uses():
    name = orphan()
    ring = ipc.SlotRing.attach(name)
    assert name not in ipc.sweep_segments()
    ring.close()
    assert name in ipc.sweep_segments()


def test_the_sweep_leaves_a_segment_whose_pid_was_recycled():
    name = f"ringserve-test-{os.getppid()}-0a0b"
    (SHM / name).write_bytes(b"x")
    try:
        assert name not in ipc.sweep_segments()
    finally:
        (SHM / name).unlink()


def test_the_sweep_leaves_a_living_segment_of_another_pid_namespace():
    """There, the creator's pid means nothing here, and may look dead; the lock tells."""
    name = orphan()
    fd = os.open(SHM / name, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert name not in ipc.sweep_segments()
    os.close(fd)
    assert name in ipc.sweep_segments()


def test_foreign_names_are_left_alone():
    for name in ("ringserve-x", "ringserve-x-y-z", "other-test-999999999-00"):
        (SHM / name).write_bytes(b"x")
        try:
            assert name not in ipc.sweep_segments()
            assert (SHM / name).exists()
        finally:
            (SHM / name).unlink()


def test_a_ring_that_can_not_be_made_leaves_nothing(slot_ring):
    with pytest.raises(ValueError, match="power of two"):
        slot_ring(slots=3)
    with pytest.raises(ValueError, match="1 to 16 consumers"):
        slot_ring(consumers=17)
    with pytest.raises(ValueError, match="either a layout or a slot_size"):
        slot_ring(slot_size=0)
    with pytest.raises(ipc.NoSpaceError):
        slot_ring(slots=2**31, slot_size=2**16)


def test_running_out_of_descriptors_leaves_nothing():
    code = """
        import os, resource, ipc
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = len(os.listdir("/proc/self/fd"))
        for limit in range(3, 64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                ring = ipc.SlotRing.create("test", slots=2, slot_size=64, consumers=4)
                ring.__exit__()
                break
            except (OSError, ipc.IpcError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
                assert len(os.listdir("/proc/self/fd")) == before
        print(os.getpid(), limit)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    pid, limit = done.stdout.split()
    assert 8 < int(limit) < 32
    assert not [path.name for path in SHM.iterdir() if f"-{pid}-" in path.name]


# ---- hand-over ----------------------------------------------------------------------------------------------


def test_to_a_subprocess_by_descriptor(slot_ring, spawn):
    there, back = slot_ring("there"), slot_ring("back")
    child = spawn("echo", {"there": there, "back": back})
    send, receive = there.producer(), back.consumer()
    child.expect("ready")
    for ring in (there, back):
        ring.unlink_when_attached(timeout=5)
        assert ring.segment.name is None
    for i in range(100):
        send.write(bytes([i]) * 64)
        assert receive.read_bytes(timeout=5) == bytes([i]) * 64
    send.close()
    assert child.result() == 100


def _spawned(handle, count):
    consumer = ipc.SlotRing.from_handle(handle).consumer(label="spawned")
    total = sum(consumer.read_bytes(timeout=20)[0] for _ in range(count))
    raise SystemExit(total)


def test_to_a_spawned_multiprocessing_child(slot_ring):
    ring = slot_ring()
    child = multiprocessing.get_context("spawn").Process(target=_spawned, args=(ring.handle, 5))
    child.start()
    producer = ring.producer()
    for i in range(5):
        producer.write(bytes([i]) * 64)
    child.join(30)
    assert child.exitcode == 10


def test_nobody_came_says_who(slot_ring):
    ring = slot_ring(consumers=2)
    ring.consumer(1)
    with pytest.raises(ipc.RingTimeout, match="no process attached as producer, consumer 0"):
        ring.unlink_when_attached(timeout=0.1)
    assert ring.segment.name is None


@pytest.mark.parametrize("text", ["", "1", "1,2", "a,b,c", "1,2,-3", "1;2;3"])
def test_a_bad_handle_is_refused(text):
    with pytest.raises(ValueError, match=r"handle|invalid literal"):
        ipc.RingHandle.from_text(text)


def test_by_name_for_tools(slot_ring):
    ring = slot_ring()
    ring.producer().write(b"x" * 64)
    tool = ipc.SlotRing.attach(ring.segment.name)
    assert tool.snapshot().producer.index == 1
    with pytest.raises(ValueError, match="attached by name"):
        _ = tool.handle
    tool.close()


def test_a_handle_to_something_else_closes_its_descriptors(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "other").write_bytes(bytes(10_000))
    for _ in range(5):
        segment = os.open(tmp_path / "other", os.O_RDWR)
        events = [os.eventfd(0) for _ in range(2)]
        with pytest.raises(ipc.CorruptRingError):
            ipc.SlotRing.from_handle(ipc.RingHandle(segment, events[0], (events[1],)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_are_given_back():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with ipc.SlotRing.create("test", slots=2, slot_size=64, consumers=3):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before

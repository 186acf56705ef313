"""Descriptors of any number."""

import os
import resource

from pipeline.runtime.readable import readable


def test_numbers_that_select_does_not_take():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > 1100, "this host allows too few descriptors"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    source, sink = os.pipe()
    try:
        os.dup2(source, 1100)
        assert readable([1100], 0) == []
        os.write(sink, b"x")
        assert readable([1100, source]) == [1100, source]
        os.close(sink)
        sink = -1
        assert readable([1100], 5) == [1100]
    finally:
        for fd in (source, sink, 1100):
            if fd >= 0:
                os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

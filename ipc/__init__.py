"""Lock-free, zero-copy rings in shared memory."""

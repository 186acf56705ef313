"""The two-process stress of `ipc`: every byte of every message is checked."""

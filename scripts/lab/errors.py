"""What can go wrong that is the user's to mend."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark can't be run as it was asked for; the message says why, and what would be right."""


class ServerError(BenchError):
    """A server did not start, went away, or is not as it was before."""

"""A fuzzer of the front: malformed HTTP and JSON, and clients that misbehave. Everything follows from a seed."""

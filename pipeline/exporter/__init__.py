"""Sends spans of requests to an OpenTelemetry collector: a process of its own, which no stage waits for or misses."""

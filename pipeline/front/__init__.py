"""The HTTP process: validation, streaming, metrics. It knows the rings and the statistics page, not models."""

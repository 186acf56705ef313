"""Requests of every kind at once, on every engine, while processes are killed and weights are changed: for
chaos.py and soak.py with --everything."""

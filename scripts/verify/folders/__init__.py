"""Folders with random checkpoints, in all the ways that models are stored, and what their servers have to answer."""

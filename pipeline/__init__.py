"""The server: front, preprocess, inference, sampling and the launcher that holds them together."""

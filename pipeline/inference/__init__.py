"""The process that owns the device. It executes steps and knows nothing of text."""

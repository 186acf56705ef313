"""The process that owns the device. It executes steps and handles no text."""

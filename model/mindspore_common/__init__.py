"""What engines on MindSpore share: steps, buckets, memory, results. Importing this does not import MindSpore."""

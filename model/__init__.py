"""Step executors: what turns a batch of tokens into logits."""

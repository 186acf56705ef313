"""The process that turns logits into tokens, and tokens into text."""

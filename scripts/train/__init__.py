"""Parts of `train_demo.py`: text, tokenizer, network, loop and export of the demo model."""

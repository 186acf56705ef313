"""What a greedy key costs a modest one: see `__main__`."""

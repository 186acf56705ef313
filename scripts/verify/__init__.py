"""What developers run to believe: models, faults, random requests, sanitizers."""

"""The answers of a model family: read piece by piece as they are generated, and guaranteed by grammars."""

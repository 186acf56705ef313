"""How byte-level tokenizers write bytes as characters."""

from __future__ import annotations


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins of bytes: printable Latin-1 stands for itself, the rest follows."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}

"""How large a grammar may be. Counts, never clocks: what is refused here is refused on every machine.

They bound a compile by 250 ms and a mask by 10 ms at 128k tokens; `scripts/bench/grammar.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.grammar.errors import GrammarError
from model.sampling import MAX_GRAMMAR_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """Each name is the one that its error says."""

    # of what a client sends
    max_schema_bytes: int = 65_536  # also of any other grammar's text
    max_depth: int = 32  # nested schemas, and nested values of const and enum
    max_schemas: int = 3_000  # schemas in a schema
    max_definitions: int = 500  # targets of $ref
    max_properties: int = 250  # of one object: time grows with the square
    max_patterns: int = 500  # pattern, format and patternProperties together
    max_counting: int = 100  # different strings with a pattern and counts or lengths
    max_enum: int = 2_000  # values of const and enum, and choices
    max_branches: int = 100  # of one anyOf, oneOf or allOf
    max_width: int = 500  # branches times properties that are possible at one place
    max_length: int = 4_000  # minLength, maxLength: a character is a state of the lexer, about 5 KB
    max_items: int = 10_000  # minItems, maxItems, minProperties, maxProperties
    max_repeat: int = 1_000  # in a pattern, nested ones multiplied
    max_multiple: int = 5_000  # least common multiple of all multipleOf; in hundredths if one has a fraction
    # of what the library makes of it
    max_text_bytes: int = MAX_GRAMMAR_BYTES
    max_grammar_size: int = 20_000  # symbols
    initial_lexer_fuel: int = 500_000
    step_lexer_fuel: int = 100_000
    step_max_items: int = 20_000
    max_items_in_row: int = 2_500  # four for each of max_width
    max_lexer_states: int = 25_000  # about 5 KB each, shared by all rows of a grammar

    def require(self, name: str, found: int, what: str, pointer: str = "") -> None:
        """Raise GrammarError if there are more than the limit ``name`` allows."""
        most: int = getattr(self, name)
        if found > most:
            raise GrammarError(name, f"{what}: {found}, more than the limit {name} ({most})", pointer)


LIMITS = Limits()

"""The last look at a grammar, in the library's own terms."""

from __future__ import annotations

import json

from model.grammar.library import validate
from model.grammar.limits import LIMITS
from model.grammar.probe import probe, probe_strings


def check(text: str) -> None:
    """Raise GrammarError unless ``text``, which `grammar_text` made, can be enforced within our limits.

    Needs no tokenizer. Up to 300 ms, 650 ms for hundreds of tools' schemas, most of them without the GIL, so call it
    in a thread. ModuleNotFoundError: llguidance is not installed.
    """
    LIMITS.require("max_text_bytes", len(text.encode()), "bytes of the grammar, formats and patterns written out")
    grammars = json.loads(text)["grammars"]
    if any("<" in grammar.get("lark_grammar", "") for grammar in grammars):  # special tokens, perhaps
        validate(text)  # only the model's vocabulary has them
    else:
        probe(text)
    schemas = [grammar["json_schema"] for grammar in grammars if "json_schema" in grammar]
    for schema in schemas if len(grammars) > 1 else ():
        probe(json.dumps({"grammars": [{"json_schema": schema}]}))
    probe_strings(schemas)

"""From a client's JSON schema, of any draft, to one that the library enforces in full; the rest is refused by name.

The result is draft 2020-12 without annotations: equal constraints give equal texts. Formats become patterns, array
forms of `items` become `prefixItems`, a `oneOf` whose branches cannot overlap becomes `anyOf`, every target of a
`$ref` becomes a definition of its own. Properties stay in their order, in which they are generated.
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any

from model.grammar.disjoint import require_disjoint
from model.grammar.errors import GrammarError, child
from model.grammar.finite import require_finite
from model.grammar.formats import ENFORCED, LONGEST, REFUSED
from model.grammar.keywords import (
    APPLICATORS,
    BOUNDS,
    UNSUPPORTED,
    draft_of,
    literal_names,
    require_countable,
    required_names,
    same,
    type_names,
)
from model.grammar.limits import LIMITS
from model.grammar.pattern import translate
from model.grammar.references import References
from model.grammar.values import multiple, require_count, require_number, require_value
from model.grammar.width import require_narrow

Canonical = dict[str, Any] | bool


def canonical_schema(schema: Any) -> dict[str, Any]:
    """Raises GrammarError for the first thing that cannot be enforced, and for what is no schema."""
    if schema is True:
        schema = {}
    if schema is False:
        raise GrammarError("schema", "the schema false allows nothing", "#")
    if not isinstance(schema, dict):
        raise GrammarError("schema", f"a schema is an object, not {type(schema).__name__}", "#")
    return _Canonicaliser(schema).run()


class _Canonicaliser:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._references = References(document)
        self._draft = draft_of(document)
        self._counts: Counter[str] = Counter()
        self._steps, self._unit = Fraction(1), 1  # least common multiple of all multipleOf
        self._definitions: dict[str, Canonical] = {}
        self._bases: list[str] = []  # where $id changes what a relative $ref means
        self._disjoint: list[tuple[list[Canonical], dict[str, Any], str]] = []

    def run(self) -> dict[str, Any]:
        root = self.schema(self._document, "#", 0)
        while self._references.pending:
            name, target = self._references.pending.pop()
            LIMITS.require("max_definitions", len(self._definitions) + 1, "targets of $ref", target)
            self._definitions[name] = self.schema(self._references.resolve(target, target), target, 0)
        if self._bases and self._definitions:
            raise GrammarError("$id", "$id below the root changes what $ref means; use $defs", self._bases[0])
        require_finite(root, self._definitions)
        require_narrow(root, self._definitions)
        for branches, siblings, pointer in self._disjoint:
            require_disjoint(branches, siblings, self._definitions, pointer)
        assert isinstance(root, dict)
        return {**root, "$defs": dict(sorted(self._definitions.items()))} if self._definitions else root

    def schema(self, schema: Any, pointer: str, depth: int) -> Canonical:
        self.count("max_schemas", "schemas", pointer)
        LIMITS.require("max_depth", depth, "nested schemas", pointer)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise GrammarError("schema", f"a schema is an object or boolean, not {type(schema).__name__}", pointer)
        if "$ref" in schema and self._draft in ("04", "06", "07"):
            schema = {"$ref": schema["$ref"]}  # these drafts ignore what stands beside
        self.refuse(schema, pointer)
        return self.rewrite(schema, pointer, depth)

    def refuse(self, schema: dict[str, Any], pointer: str) -> None:
        for keyword, harmless in UNSUPPORTED.items():
            if keyword == "uniqueItems" and schema.get("maxItems") in (0, 1):
                continue
            if keyword in schema and not any(same(schema[keyword], value) for value in harmless):
                why = f"the keyword {keyword} cannot be enforced; say it with others, or leave it out"
                raise GrammarError(keyword, why, child(pointer, keyword))
        named = schema.get("$id", schema.get("id"))
        if pointer != "#" and isinstance(named, str) and not named.startswith("#"):
            self._bases.append(pointer)

    def rewrite(self, schema: dict[str, Any], pointer: str, depth: int) -> dict[str, Any]:
        """All assertions together, where the first one stands: the library must see them at once."""
        result: dict[str, Any] = {}
        extra: list[Canonical] = []
        assertions = self.assertions(schema, pointer, depth, extra)
        for keyword in schema:
            if keyword in APPLICATORS:
                result |= self.applicator(keyword, schema, child(pointer, keyword), depth, extra)
            elif assertions:
                result |= assertions
                assertions = {}
        result |= assertions
        if extra:
            result["allOf"] = [*result.get("allOf", ()), *extra]
        return result

    # assertions

    def assertions(self, schema: dict[str, Any], pointer: str, depth: int, extra: list[Canonical]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "type" in schema:
            found["type"] = type_names(schema["type"], child(pointer, "type"))
        found |= self.numbers(schema, pointer)
        found |= self.strings(schema, pointer, extra)
        found |= self.arrays(schema, pointer, depth)
        return found | self.objects(schema, pointer, depth)

    def numbers(self, schema: dict[str, Any], pointer: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for keyword in BOUNDS:
            value = schema.get(keyword)
            if isinstance(value, bool) and keyword.startswith("exclusive"):  # as in draft 4
                continue
            if keyword in schema:
                found[keyword] = require_number(value, keyword, child(pointer, keyword))
        for keyword in ("minimum", "maximum"):
            exclusive = f"exclusive{keyword.capitalize()}"
            if schema.get(exclusive) is True and keyword in found:
                found[exclusive] = found.pop(keyword)
        if "multipleOf" in schema:
            found["multipleOf"] = self.step(schema["multipleOf"], child(pointer, "multipleOf"))
        return found

    def step(self, value: Any, pointer: str) -> int | float:
        """The library counts in hundredths as soon as one is no integer, and its products must fit into 32 bits."""
        step, known = multiple(value, pointer), self._steps
        self._steps = Fraction(
            math.lcm(known.numerator, step.numerator), math.gcd(known.denominator, step.denominator)
        )
        self._unit = max(self._unit, 1 if step.denominator == 1 else 100)
        LIMITS.require("max_multiple", int(self._steps * self._unit), "least common multiple of multipleOf", pointer)
        return int(value) if value == int(value) else value

    def strings(self, schema: dict[str, Any], pointer: str, extra: list[Canonical]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for keyword in ("minLength", "maxLength"):
            if keyword in schema:
                found[keyword] = require_count(schema[keyword], keyword, "max_length", child(pointer, keyword))
        if "pattern" in schema:
            found["pattern"] = self.pattern(schema["pattern"], child(pointer, "pattern"))
        form = self.format(schema.get("format"), child(pointer, "format"))
        if form and (found.keys() & form.keys()):
            extra.append(form)
        else:
            found |= form
        return found

    def pattern(self, pattern: Any, pointer: str, keyword: str = "pattern") -> str:
        self.count("max_patterns", "patterns", pointer)
        if not isinstance(pattern, str):
            raise GrammarError(keyword, f"{keyword} must be a string, not {str(pattern)[:40]}", pointer)
        return translate(pattern, pointer, keyword)

    def format(self, name: Any, pointer: str) -> dict[str, Any]:
        if not isinstance(name, str):
            return {}
        if name in REFUSED:
            raise GrammarError(
                "format", f"format {name} cannot be enforced; those that can: {', '.join(ENFORCED)}", pointer
            )
        if name not in ENFORCED:
            return {}  # an annotation, says the standard
        self.count("max_patterns", "patterns", pointer)
        longest = {"maxLength": LONGEST[name]} if name in LONGEST else {}
        return {"pattern": f"^(?:{ENFORCED[name]})$", **longest}

    def arrays(self, schema: dict[str, Any], pointer: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        prefix, items = self.item_keywords(schema)
        if prefix:
            found["prefixItems"] = self.several(schema[prefix], child(pointer, prefix), depth, fewest=0)
        if items:
            found["items"] = self.schema(schema[items], child(pointer, items), depth + 1)
        for keyword in ("minItems", "maxItems"):
            if keyword in schema:
                found[keyword] = require_count(schema[keyword], keyword, "max_items", child(pointer, keyword))
        return found

    def item_keywords(self, schema: dict[str, Any]) -> tuple[str, str]:
        """Which keywords stand for the first items and for the others: drafts differ."""
        if isinstance(schema.get("items"), list):
            return "items", "additionalItems" if "additionalItems" in schema else ""
        return ("prefixItems" if "prefixItems" in schema else ""), ("items" if "items" in schema else "")

    def objects(self, schema: dict[str, Any], pointer: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "properties" in schema:
            properties = self.named(schema["properties"], child(pointer, "properties"), depth)
            found["properties"] = properties
        if "patternProperties" in schema:
            at = child(pointer, "patternProperties")
            named = self.named(schema["patternProperties"], at, depth)
            listed = {key: literal_names(key) for key in named}
            rest = {self.pattern(key, at, "patternProperties"): named[key] for key in named if not listed[key]}
            if rest:
                found["patternProperties"] = rest
            for key, names in listed.items():
                _add_properties(found, names, named[key])
        LIMITS.require("max_properties", len(found.get("properties", ())), "properties", pointer)
        if "additionalProperties" in schema:
            at = child(pointer, "additionalProperties")
            found["additionalProperties"] = self.schema(schema["additionalProperties"], at, depth + 1)
        if "required" in schema and not isinstance(schema["required"], bool):  # draft 3's is another keyword
            found["required"] = required_names(schema["required"], child(pointer, "required"))
        for keyword in ("minProperties", "maxProperties"):
            if keyword in schema:
                found[keyword] = require_count(schema[keyword], keyword, "max_items", child(pointer, keyword))
        require_countable(found, pointer)
        return found

    # applicators

    def applicator(
        self, keyword: str, schema: dict[str, Any], pointer: str, depth: int, extra: list[Canonical]
    ) -> dict[str, Any]:
        value = schema[keyword]
        if keyword == "$ref":
            return {"$ref": f"#/$defs/{self._references.name(value, pointer)}"}
        if keyword == "const":
            self.count("max_enum", "values", pointer)
            require_value(value, keyword, pointer)
            return {"const": value}
        if keyword == "enum":
            return {"enum": self.values(value, pointer)}
        branches = self.several(value, pointer, depth)
        if keyword != "oneOf":
            return {keyword: branches}
        siblings = {"type": type_names(schema["type"], pointer)} if "type" in schema else {}
        self._disjoint.append((branches, siblings, pointer))
        if "anyOf" not in schema:
            return {"anyOf": branches}
        extra.append({"anyOf": branches})
        return {}

    def values(self, value: Any, pointer: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise GrammarError("enum", "enum must be an array with at least one value", pointer)
        self._counts["max_enum"] += len(value) - 1
        self.count("max_enum", "values", pointer)
        for at, one in enumerate(value):
            require_value(one, "enum", child(pointer, at))
        return value

    # parts

    def count(self, limit: str, what: str, pointer: str) -> None:
        self._counts[limit] += 1
        LIMITS.require(limit, self._counts[limit], what, pointer)

    def several(self, value: Any, pointer: str, depth: int, fewest: int = 1) -> list[Canonical]:
        keyword = pointer.rpartition("/")[2]
        if not isinstance(value, list) or len(value) < fewest:
            raise GrammarError(keyword, f"{keyword} must be an array of schemas", pointer)
        LIMITS.require("max_branches", len(value), f"schemas in {keyword}", pointer)
        return [self.schema(one, child(pointer, at), depth + 1) for at, one in enumerate(value)]

    def named(self, value: Any, pointer: str, depth: int) -> dict[str, Canonical]:
        keyword = pointer.rpartition("/")[2]
        if not isinstance(value, dict):
            raise GrammarError(keyword, f"{keyword} must be an object of schemas", pointer)
        return {name: self.schema(one, child(pointer, name), depth + 1) for name, one in value.items()}


def _add_properties(found: dict[str, Any], names: list[str], schema: Canonical) -> None:
    """A pattern of a few names lists them. Once all are written, the library would wait for another one, in vain."""
    properties = found.setdefault("properties", {}) if names else {}
    for name in names:
        properties[name] = {"allOf": [properties[name], schema]} if name in properties else schema

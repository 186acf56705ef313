"""One description of model families, which every engine builds from. Knows no engine.

`read_spec`: a ``config.json`` to features. `canonical`: stored tensors to a decoder's own, one by one.
"""

from model.families.canonical import canonical, canonical_weights
from model.families.reading import read_spec, read_spec_file
from model.families.rope import Rope
from model.families.spec import Experts, Spec

__all__ = ["Experts", "Rope", "Spec", "canonical", "canonical_weights", "read_spec", "read_spec_file"]

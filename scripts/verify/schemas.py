"""Public JSON schemas against model.grammar: nothing that is generated, and nothing that is accepted, may be wrong.

    python -m scripts.verify.schemas DIRECTORY [--schemas 400] [--walks 20] [--seed 1] [--json FILE]
    python -m scripts.verify.schemas --fetch           # the schemas, from their public repository

The directory holds guidance-ai/jsonschemabench, whose maskbench/data has schemas with valid and invalid instances. Of
every schema, with the demo model's tokenizer: is it refused, and for which keyword? Random walks over the masks are
judged by `jsonschema` with its format checks, and so are the instances: a valid one that is not accepted is "in part"
(key order is fixed), anything invalid that is generated or accepted is wrong. Exit status 1 if anything was.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from scripts.lab.arguments import count, parser, say, write_json
from scripts.lab.table import columns
from scripts.verify.structured.conformance import Case, Judge, Verdict
from scripts.verify.structured.source import fetch, find

ORDER = ("right", "in part", "refused", "wrong", "not judged")


def main() -> int:
    command = parser(__doc__)
    command.add_argument("directory", nargs="?", type=Path, help="where jsonschemabench is")
    command.add_argument("--fetch", action="store_true", help="get it from GitHub")
    command.add_argument("--schemas", type=count, default=400)
    command.add_argument("--walks", type=count, default=20, help="random texts a schema")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--json", type=Path)
    command.add_argument("--only", default="", help="schemas whose name contains this")
    given = command.parse_args()
    if given.directory is None and not given.fetch:
        command.error("give the directory of jsonschemabench, or --fetch")
    with tempfile.TemporaryDirectory() as folder:
        files = [file for file in find(given.directory or fetch(Path(folder))) if given.only in file.name]
        chosen = random.Random(given.seed).sample(files, min(given.schemas, len(files)))  # noqa: S311
        verdicts = judge(chosen, given.walks, given.seed)
    show(verdicts)
    write_json(given.json, [verdict.summary() for verdict in verdicts])
    return int(any(verdict.kind == "wrong" for verdict in verdicts))


def judge(files: list[Path], walks: int, seed: int) -> list[Verdict]:
    judge, verdicts = Judge(walks, seed), []
    for at, file in enumerate(sorted(files)):
        verdicts.append(judge.verdict(Case.read(file)))
        if verdicts[-1].kind == "wrong":
            say(f"{file.name}: {verdicts[-1].why}")
        if at % 100 == 99:
            say(f"{at + 1} of {len(files)}: {dict(Counter(verdict.kind for verdict in verdicts))}")
    return verdicts


def show(verdicts: list[Verdict]) -> None:
    kinds = Counter(verdict.kind for verdict in verdicts)
    print(columns(("schemas", "", "%"), [(kind, kinds[kind], 100 * kinds[kind] / len(verdicts)) for kind in ORDER]))
    texts, valid = sum(verdict.texts for verdict in verdicts), sum(verdict.instances for verdict in verdicts)
    print(f"{texts} texts generated and {valid} instances judged")
    for kind in ("refused", "in part", "not judged"):
        why = Counter(verdict.keyword for verdict in verdicts if verdict.kind == kind)
        print(f"{kind}: " + ", ".join(f"{keyword} {number}" for keyword, number in why.most_common()))


if __name__ == "__main__":
    sys.exit(main())

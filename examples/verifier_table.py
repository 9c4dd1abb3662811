"""How the honest answer pairs of the tests are judged by ours, OpenRLHF's grader and Math-Verify: a Markdown table.

    python examples/verifier_table.py

Each of the three is the real library, and each is asked about the answer alone: extraction is not compared.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify.math import judge_math

PAIRS = Path(__file__).parent.parent / "tests" / "verify" / "honest_pairs.tsv"
GRADERS = ("OpenRLHF", "Math-Verify")


@dataclass(frozen=True)
class Pair:
    """An answer that a model may write to a gold answer, and whether it is right."""

    kind: str
    gold: str
    answer: str
    right: bool


def honest_pairs() -> list[Pair]:
    """The pairs, in the order of the file."""
    lines = [line.split("\t") for line in PAIRS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return [Pair(kind, gold, answer, {"right": True, "wrong": False}[truth]) for kind, gold, answer, truth in lines]


def load_stock_grader() -> ModuleType:
    """OpenRLHF's `math_utils`, loaded from its file: importing `openrlhf` would bring torch and DeepSpeed."""
    package = importlib.util.find_spec("openrlhf")
    assert package is not None and package.submodule_search_locations, "openrlhf is not installed"
    path = Path(package.submodule_search_locations[0]) / "utils" / "math_utils.py"
    spec = importlib.util.spec_from_file_location("stock_math_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape sequence in that file
        spec.loader.exec_module(module)
    return module


def grade_all(pairs: list[Pair]) -> list[tuple[Pair, dict[str, bool]]]:
    """Each pair with the verdicts `ours` and of the other two."""
    import math_verify

    logging.disable(logging.CRITICAL)
    stock = load_stock_grader()
    found = []
    try:
        for pair in pairs:
            # Without its time limits: they are wall time, and this table must not depend on what else runs.
            gold, answer = (
                math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (pair.gold, pair.answer)
            )
            verdicts = {
                "ours": judge_math(f"\\boxed{{{pair.answer}}}", pair.gold).verdict is Verdict.CORRECT,
                "OpenRLHF": bool(stock.grade_answer(pair.answer, pair.gold)),
                "Math-Verify": bool(math_verify.verify(gold, answer, timeout_seconds=None)),
            }
            found.append((pair, verdicts))
    finally:
        logging.disable(logging.NOTSET)
    return found


def table(graded: list[tuple[Pair, dict[str, bool]]]) -> str:
    """Pairs judged as they should be, by kind and grader."""
    names = ("ours", *GRADERS)
    lines = ["| answers | pairs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    kinds = list(dict.fromkeys(pair.kind for pair, _ in graded))
    for kind in [*kinds, "all"]:
        rows = [(pair, verdicts) for pair, verdicts in graded if kind in (pair.kind, "all")]
        counts = [sum(verdicts[name] is pair.right for pair, verdicts in rows) for name in names]
        lines.append(f"| {kind} | {len(rows)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(grade_all(honest_pairs())))

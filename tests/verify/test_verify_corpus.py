"""Two corpora: hostile responses cost a verdict and nothing else, and honest answers are judged right.

The honest pairs are graded here by three real libraries; `examples/verifier_table.py` makes the
table of docs/verifiers.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import GOLD, corpus

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from verifier_table import grade_all, honest_pairs, table
from verifier_workers import server

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.sandbox import VerifierPool

REPOSITORY = Path(__file__).parents[2]
GIB = 1 << 30


GOLDS = {"math": GOLD, "choice": "C", "exact": "none of these"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GOLDS))
def test_hostile_responses(name: str, tmp_path: Path) -> None:
    """Nothing is executed, nothing hangs, and the workers go on; the limits are the defaults."""
    canary = tmp_path / "canary"
    kinds = corpus(canary)
    responses = [response for kind in kinds.values() for response in kind]
    assert len(responses) >= 150
    gold = GOLDS[name]
    with VerifierPool(name, workers=2, memory_limit=GIB) as pool:
        judgements = pool.judge_all([(response, gold) for response in responses])
        judgements += pool.judge_all([(VERIFIERS[name].gold_response(gold), gold)])
        seconds = workers_seconds(pool)
    assert not canary.exists()
    assert judgements.pop().verdict is Verdict.CORRECT
    right = [r[-60:] for r, j in zip(responses, judgements, strict=True) if j.verdict is Verdict.CORRECT]
    assert all(
        "1/2" in r or "1\u20442" in r or "½" in r or "（1/2）" in r or "𝟙/𝟚" in r or "\u200b" in r for r in right
    ), right
    assert 0 < seconds < 60, f"{seconds:.0f} s of CPU time for {len(responses)} responses"


def workers_seconds(pool: VerifierPool) -> float:
    """CPU time of all workers; the server that forked them knows that of those that have ended."""
    times = server(pool).cpu_times()
    alive = [worker.cpu_times() for worker in server(pool).children()]
    return sum((time.user + time.system for time in alive), start=times.children_user + times.children_system)


def test_a_hostile_gold_answer_is_refused(tmp_path: Path) -> None:
    """Data sets are not ours either."""
    golds = corpus(tmp_path / "canary")["code"][::5]
    with VerifierPool("math", workers=2, memory_limit=GIB) as pool:
        pool.judge_all([("\\boxed{1/2}", gold) for gold in golds])
    assert not (tmp_path / "canary").exists()


@pytest.fixture(scope="module")
def graded() -> Iterator[list[tuple[Any, dict[str, bool]]]]:
    yield grade_all(honest_pairs())


def test_honest_pairs(graded: list[tuple[Any, dict[str, bool]]]) -> None:
    assert len(graded) >= 300
    assert {pair.right for pair, _ in graded} == {True, False}
    misjudged = [(pair, verdicts) for pair, verdicts in graded if verdicts["ours"] is not pair.right]
    assert not misjudged, misjudged


def test_honest_pairs_need_no_limit(graded: list[tuple[Any, dict[str, bool]]]) -> None:
    """In the sandbox, with a gibibyte and five seconds, all verdicts are the same as without limits."""
    with VerifierPool("math", workers=2, memory_limit=GIB) as pool:
        judgements = pool.judge_all([(f"\\boxed{{{pair.answer}}}", pair.gold) for pair, _ in graded])
    assert [judgement.verdict is Verdict.CORRECT for judgement in judgements] == [v["ours"] for _, v in graded]
    assert {judgement.verdict for judgement in judgements} == {Verdict.CORRECT, Verdict.WRONG}


def test_the_table_of_the_page(graded: list[tuple[Any, dict[str, bool]]]) -> None:
    assert table(graded) in (REPOSITORY / "docs" / "verifiers.md").read_text()


def test_nothing_is_evaluated(tmp_path: Path) -> None:
    """Not even without the sandbox: an audit hook sees no code that runs, and nothing that reaches outside."""
    script = Path(__file__).parents[1] / "support" / "verify_audit_script.py"
    command = [sys.executable, str(script), str(tmp_path / "canary")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert ast.literal_eval(result.stdout.splitlines()[-1]) == []
    assert not (tmp_path / "canary").exists()

"""The math verifier: what it finds in a text, that it grades as OpenRLHF does, and that it evaluates no text."""

import functools
import subprocess
import sys
import time

import math_verify
import pytest

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify import VERIFIERS, load_verifier
from openrlhf_cft.verify.extract import extract_answer, gold_response
from openrlhf_cft.verify.grader import check_expression, load_grader, load_stock_grader
from openrlhf_cft.verify.math import judge_math


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{2}", ("2", "boxed")),
        (r"\boxed{\frac{1}{2}} and 7", (r"\frac{1}{2}", "boxed")),
        (r"\boxed{\boxed{5}}", ("5", "boxed")),
        (r"\boxed{\{1, 2\}}", (r"\{1, 2\}", "boxed")),
        (r"in \boxed{}: \boxed{ 3 } #### 4", ("3", "boxed")),
        (r"put it in \boxed{}. It is 8.", ("8", "last_number")),
        (r"\boxed{5} and then \boxed{6", ("5", "boxed")),
        (r"} \boxed{4} {", ("4", "boxed")),
        (r"{ \boxed{4}", ("4", "boxed")),
        ("the answer is 3\n#### 1,234\nmore 5", ("1,234", "hashes")),
        ("#### 1\n#### $2.", ("2", "hashes")),
        ("The answer is 3. Or rather, the answer is 4. Checked 2 times.", ("4", "phrase")),
        ("**Final answer:** 12", ("12", "phrase")),
        ("Answer:\n\n$\\frac{3}{4}$.", (r"\frac{3}{4}", "phrase")),
        (r"The answer is: \(x^2 + 1\).", ("x^2 + 1", "phrase")),
        ("The answer is 5 apples, out of 7.", ("5", "phrase")),
        ("The answer is 5, because 2+3=5", ("5", "phrase")),
        ("The answer is therefore **$18**.", ("18", "phrase")),
        ("the answer is 5 or 7", ("5 or 7", "phrase")),
        ("the answer is 2 pi", ("2 pi", "phrase")),
        ("so -3.50.", ("-3.50", "last_number")),
        ("so 10-5", ("5", "last_number")),
        ("it costs $1,234,567.89.", ("1,234,567.89", "last_number")),
        ("that is 3/4.", ("3/4", "last_number")),
        (r"equals \frac{1}{2}", (r"\frac{1}{2}", "last_number")),
        ("about 25%.", ("25%", "last_number")),
        ("is .5", (".5", "last_number")),
        ("is −7", ("-7", "last_number")),
        ("no idea", None),
        ("", None),
        (r"\boxed{", None),
    ],
)
def test_extraction(text, expected):
    assert extract_answer(text) == expected


@pytest.mark.parametrize(
    "unit",
    [
        "1,111",
        "{",
        r"\boxed{",
        r"\boxed{1}",
        "answer is ",
        "answer: 1 ",
        "####",
        "1",
        "1/1",
        " ",
        "-",
        "1 ",
        "\\",
        "$",
    ],
)
def test_extraction_is_linear(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_answer(text)
    assert time.process_time() - start < 1.0


HONEST = [
    pair
    for line in r"""
5|5  5|6  5.0|5  05|5  1,234|1234  1,234,567|1234567  -3|-3  -3|3  0.5|1/2  0.25|1/4  .5|0.5  0.333|1/3
\frac{1}{2}|1/2  \frac12|1/2  \dfrac{1}{2}|\frac{1}{2}  \tfrac34|0.75  2/4|1/2  \frac{2}{4}|\frac{1}{2}
\frac{-1}{2}|-\frac{1}{2}  3/4|0.75  50\%|50  50%|50  50|50%  \$18|18  $18$|18  18.00|18  18\text{ cm}|18
\sqrt{2}|2^{1/2}  \sqrt{8}|2\sqrt{2}  \frac{\sqrt{2}}{2}|\frac{1}{\sqrt{2}}
\sqrt2|\sqrt{2}  \sqrt{3}|\sqrt{2}
2\pi|2\pi  \pi*2|2\pi  \frac{\pi}{2}|\pi/2  3\pi|2\pi  \infty|\infty  -\infty|\infty
x+1|1+x  2x+2|2(x+1)  x^2-1|(x-1)(x+1)  x^2|x^3  x*y|y*x  a+b|b+a  x(x+1)|x^2+x  x=5|5  y=2x|2x  e^2|e^2
(1,2)|(1,2)  (1,\,2)|(1,2)  (2,1)|(1,2)  (1,0.5)|(1,\frac{1}{2})  [1,2]|(1,2)  [0,1)|[0,1)  (1,2,3)|(1,2)
5!|120.5  x!|x!  90^\circ|90  90^{\circ}|90  12\text{ meters}|12  \text{yes}|yes  \text{no}|yes  B|\text{B}
10^{3}|1000  10^3|1000  3\cdot10^2|300  2\times 3|6  5.2million|5200000  1_000|1000  0.[3]|1/3  0.1[6]|1/6
\left(1,2\right)|(1,2)  \{1,2\}|\{1,2\}  \theta|\theta  i|i  1+i|i+1  re(x)|re(x)  x_1|x_1  2.x|2x  7//2|3
""".strip().splitlines()
    for pair in line.split("  ")
]


stock_grader = functools.cache(load_stock_grader)


@pytest.mark.parametrize("pair", HONEST)
def test_grades_as_openrlhf_or_math_verify(pair):
    given, gold = pair.split("|")
    expected = stock_grader().grade_answer(given, gold)
    assert load_grader().grade_answer(given, gold) == expected
    expected = expected or math_verify.verify(*(math_verify.parse(f"\\boxed{{{text}}}") for text in (gold, given)))
    assert judge_math(f"\\boxed{{{given}}}", gold).verdict == (Verdict.CORRECT if expected else Verdict.WRONG)


def test_honest_pairs_are_both_right_and_wrong():
    verdicts = [load_grader().grade_answer(*pair.split("|")) for pair in HONEST]
    assert verdicts.count(True) > 40 and verdicts.count(False) > 15


def test_verdicts():
    assert judge_math("nothing", "5").verdict is Verdict.UNPARSABLE
    judgement = judge_math(r"\boxed{6}", "5")
    assert (judgement.verdict, judgement.answer, judgement.found_by) == (Verdict.WRONG, "6", "boxed")
    assert judge_math("#### 5", "5").verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "(1).real",
        "x.x",
        "().__class__",
        "'1'*9",
        '"1"',
        "[1][0]",
        "f'1'",
        "b'1'",
        "id(1)",
        "all(1)",
        "fu(x)",
        "1if(1)else(2)",
        "(2)or(3)",
        "(x:=1)",
        "lambda:1",
        "{1:2}",
        "1;2",
        "1\n2",
        "x_x",
        "1#2",
        "x@x",
        "x<2",
        "x=2",
        "1" * 2000,
    ],
)
def test_guard_refuses(expression):
    with pytest.raises(ValueError):
        check_expression(expression)


@pytest.mark.parametrize(
    "expression", ["(x)-(2*x+1)", "(sqrt(2))-(2^.5)", "(5!)-(pi/2)", "(0.1[6])-(1/6)", "(θ)-(2x)"]
)
def test_guard_accepts(expression):
    check_expression(expression)


def test_answers_are_not_evaluated(tmp_path, monkeypatch):
    """Code that OpenRLHF's letter count lets through: at most two different letters outside `sqrt` and `frac`."""
    reached = []
    grader = load_grader()
    monkeypatch.setattr(grader.sympy, "simplify", lambda expression: reached.append(expression) or expression)
    canary = tmp_path / "canary"
    for answer in (f"__import__('os').system('touch {canary}')", f"open('{canary}','w')", "x.x", "id(1)", "'1'*9"):
        assert not grader.grade_answer(answer, "1/2")
        assert not grader.are_equal_under_sympy("1/2", answer)
    assert not reached and not canary.exists()


@pytest.mark.parametrize("answer", ["id(1)*0+1/2", "[1/2][0]"])
def test_code_that_openrlhf_evaluates_is_refused(answer):
    """The one place where the graders differ, on purpose: the stock one calls a builtin, and is satisfied."""
    assert stock_grader().grade_answer(answer, "1/2")
    assert not load_grader().grade_answer(answer, "1/2")


def test_code_is_read_as_mathematics():
    """`id(1)*0 + 1/2` is i d 1 0 + 1/2 to Math-Verify, which calls nothing."""
    assert judge_math("\\boxed{id(1)*0+1/2}", "1/2").verdict is Verdict.CORRECT
    assert judge_math("\\boxed{id(1)*0+1/2}", "1/3").verdict is Verdict.WRONG
    assert judge_math("\\boxed{[1/2][0]}", "1/2").verdict is Verdict.WRONG


def test_unknown_verifier_is_named():
    assert load_verifier("math") is VERIFIERS["math"]
    with pytest.raises(ValueError, match=r"'maths'.*math"):
        load_verifier("maths")


def test_import_is_light():
    code = (
        "import sys, openrlhf_cft.verify, openrlhf_cft.verify.sandbox\n"
        "print([name for name in ('torch', 'vllm', 'ray', 'sympy', 'openrlhf', 'deepspeed') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_missing_openrlhf_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install openrlhf"):
        load_stock_grader()


def test_a_gold_solution_counts_for_the_answer_that_it_marks() -> None:
    gsm8k = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = 72.\n#### 72"
    assert judge_math("so 72 clips", gsm8k).verdict is Verdict.CORRECT
    assert judge_math("so 24 clips", gsm8k).verdict is Verdict.WRONG
    assert judge_math(gold_response(gsm8k), gsm8k).verdict is Verdict.CORRECT
    assert judge_math("it is 1/2", r"Half of it, so $\boxed{\frac{1}{2}}$.").verdict is Verdict.CORRECT

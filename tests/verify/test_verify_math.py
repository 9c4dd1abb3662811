"""The math verifier: what it finds in a text, what it calls equal, and that it evaluates no text."""

# ruff: noqa: E501

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import math_verify
import pytest
from cpu_time import cpu_seconds

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify import VERIFIERS, load_verifier
from openrlhf_cft.verify.choice import judge_choice
from openrlhf_cft.verify.equality import equal
from openrlhf_cft.verify.extract import extract_answer
from openrlhf_cft.verify.gold import gold_response, read_gold, write_gold
from openrlhf_cft.verify.math import judge_math
from openrlhf_cft.verify.value import Tolerance

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))
from verifier_table import load_stock_grader  # noqa: E402

stock_grader = functools.cache(load_stock_grader)


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
        ("so 10-5", ("10-5", "last_number")),
        ("it costs $1,234,567.89.", ("1,234,567.89", "last_number")),
        ("that is 3/4.", ("3/4", "last_number")),
        (r"equals \frac{1}{2}", (r"\frac{1}{2}", "last_number")),
        ("about 25%.", ("25%", "last_number")),
        ("is .5", (".5", "last_number")),
        ("is −7", ("-7", "last_number")),
        (r"\boxed{1} and \boxed{2}", ("1, 2", "boxed")),
        (r"\boxed{5}\n\n\boxed{6}", ("6", "boxed")),
        (r"$x=\boxed{3}$, $y = \boxed{5}$", ("x = 3, y = 5", "boxed")),
        (r"\boxed{5}, that is \fbox{5}", ("5", "boxed")),
        (r"-\boxed{5}", ("- (5)".replace(" ", ""), "boxed")),
        (r"so x > \boxed{5}", ("x > 5", "boxed")),
        ("**Answer:** She makes $18 every day.", ("18", "phrase")),
        ("Answer: Tom has 7 more marbles than Jerry.", ("7", "phrase")),
        ("The answer is 12 less than 20.", ("12 less than 20", "phrase")),
        ("The answer is Mr. Boone.", ("Mr. Boone", "phrase")),
        ("The answer is twenty-five apples.", ("25", "phrase")),
        ("The answer is 12 km.", ("12 km", "phrase")),
        ("The answer is 5. I doubt the answer is 6.", ("5", "phrase")),
        ("The answer is\n\\[\n42\n\\]", ("42", "phrase")),
        (r"so x = 12\sqrt{3}", (r"12\sqrt{3}", "last_number")),
        ("so it is 3.0 x 10^8", ("3.0 x 10^8", "last_number")),
        ("5 + 7 = 12 apples", ("12", "last_number")),
        ("the roots are 2 and 3.", ("2, 3", "last_number")),
        ("So the point is (3, 5).", ("(3, 5)", "last_number")),
        ("so x > 12", ("x > 12", "last_number")),
        ("it is not 12", None),
        ("is it 5?", None),
        ("<<48/2=24>>24 clips", ("24", "last_number")),
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
    assert cpu_seconds(lambda: extract_answer(text)) < 1.0


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
# What those graders read as Python or as sympy's own notation, and mathematics does not; and the other way round.
JUDGED_OTHERWISE = {r"5.2million|5200000", "1_000|1000", "0.[3]|1/3", "0.1[6]|1/6", "2.x|2x"}


@pytest.mark.parametrize("pair", HONEST)
def test_agrees_with_openrlhf_or_math_verify(pair: str) -> None:
    given, gold = pair.split("|")
    expected = stock_grader().grade_answer(given, gold) or math_verify.verify(
        *(math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, given)),
        timeout_seconds=None,
    )
    assert equal(given, gold) is (bool(expected) is not (pair in JUDGED_OTHERWISE))


def corpus(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (HERE / name).read_text("utf-8").splitlines() if not line.startswith("#")]


def test_responses_of_all_kinds() -> None:
    """Responses and golds as they occur, and what a policy may try; each with what a careful person says."""
    rows = corpus("verdicts.tsv")
    assert len(rows) > 2_000
    wrong = []
    for kind, response, gold, truth in rows:
        judge = judge_choice if kind.startswith("choice") else judge_math
        judgement = judge(json.loads(response), json.loads(gold))
        if (judgement.verdict is Verdict.CORRECT) != (truth == "right"):
            wrong.append((kind, response, gold, truth, judgement.answer))
    assert not wrong, wrong


def test_a_gold_answer_equals_itself() -> None:
    golds = {json.loads(gold) for kind, _, gold, _ in corpus("verdicts.tsv") if not kind.startswith("choice")}
    golds |= {gold for _, gold, _, _ in corpus("honest_pairs.tsv")}
    refused = [gold for gold in golds if gold.strip() and judge_math(gold_response(gold), gold).score != 1.0]
    assert set(refused) <= {"\\text{}", "\\$", "\\,", "$$", "{}", "\\quad"}, refused


SAME = [
    ("5", "5.0"), ("1,234", "1234"), (r"\frac12", "0.5"), (r"0.1\overline{6}", r"\frac{1}{6}"), ("2.5e-3", "0.0025"),
    (r"\sqrt[3]{-8}", "-2"), ("x(x+1)", "x^2+x"), ("|x|", r"\sqrt{x^2}"), (r"\ln x^2", r"2\ln x"), ("n!", "n(n-1)!"),
    (r"v^2_0 m", "mv_0^2"), (r"\cos x", r"\sin(90^\circ - x)"), ("(-1)^n", "(-1)^{n+2}"), (r"e^{i\pi}", "-1"),
    (r"\frac{10!}{5!5!}", "252"), (r"\log_2 8", "3"), (r"\tan 45^\circ", "1"), ("1 1/2", r"\frac32"), ("50%", "0.5"),
    ("[0,1)", r"\{x \mid 0 \le x < 1\}"), ("x>5 \\text{ and } x<7", "(5,7)"), (r"x \ne 3", r"(-\infty,3)\cup(3,\infty)"),
    (r"\{3,1\}", "1,3"), ("x=1, y=2", "(1,2)"), (r"\langle 1,2 \rangle", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"2x - y + 1 = 0", "y = 2x+1"), ("2 < x", "x > 2"), ("-2x < -4", "x > 2"), ("A = \\pi r^2 = 25\\pi", r"25\pi"),
    (r"n \equiv 4 \pmod 3", r"n \equiv 1 \pmod{3}"), ("1.2 m", "120 cm"), ("4:6", "2:3"), ("15:00", "3 p.m."),
    (r"\text{twelve}", "12"), ("5 dozen", "60"), (r"\frac{\pi}{3}", r"60^\circ"), ("101_{two}", "101_2"), ("A(1,2)", "(1,2)"),
    ("(\\pm 2, 0)", "(2,0),(-2,0)"), (r"\mathbb{R}", r"(-\infty,\infty)"), ("f(g(x))", "f(g(x))"), ("0.333...", "1/3"),
]  # fmt: skip
OTHER = [
    ("0", "8.85e-12"), ("e^{-200}", "0"), ("3^{2021}+1", "3^{2021}"), ("0.333", "1/3"), ("|x|", "x"), (r"\csc x", r"\sec x"),
    ("(2,1)", "(1,2)"), ("[0,1)", "[0,1]"), ("0", "x^2+4=0"), ("4", "x^2+y^2=4"), ("2x=10", "10"), ("x^2=4", "4"),
    (r"x \not= 5", "5"), ("12 ft", "12 in"), ("5 tens", "5"), ("GM", "Gm"), ("0,234", "234"),
    ("f(g(x))", "g(f(x))"), (r"\mathbf{a}\times\mathbf{b}", r"\mathbf{b}\times\mathbf{a}"), ("x<1", "x>1"), ("y>2", "x>2"),
    ("5 pmod 6", "5"), ("12 km", "12 m"), ("7 nickels", "7 dimes"), ("3:45", "3:30"), ("12 a.m.", "12 p.m."), ("110_2", "101_2"),
    (r"\tan(\pi/2)", "0"), ("9^{9^{9^9}}", "3"), ("x+1", "x+1.0000000000001"), ("(1,234)", "1234"), ("1 2", "12"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same(answer: str, gold: str) -> None:
    assert equal(answer, gold) and equal(gold, answer)


@pytest.mark.parametrize(("answer", "gold"), OTHER)
def test_another(answer: str, gold: str) -> None:
    assert not equal(answer, gold) and not equal(gold, answer)


def test_an_identity_is_no_answer_to_another() -> None:
    assert not equal("5=5", r"\ln e^5 = 5") and not equal(r"\frac12 = 0.5", r"\cos 60^\circ = \frac12")
    assert equal("5", r"\ln e^5 = 5") and equal(r"\ln(e^5) = 5", r"\ln e^5 = 5")


def test_tolerance() -> None:
    near = Tolerance(relative=0.05)
    assert equal("1.01e-19", "1.0e-19", near) and equal("9.9", "10", near) and equal("(9.9, 1)", "(10, 1.0)", near)
    assert equal(r"\sqrt{2}", "1.4142", Tolerance(1e-4)) and equal("12.05", "12", Tolerance(absolute=0.1))
    assert not equal("0", "1.0e-19", near) and not equal("1.2e-19", "1.0e-19", near)
    assert not equal("1.05x", "x", near) and not equal("12.2", "12", Tolerance(absolute=0.1))


def test_a_gold_answer_may_bring_its_tolerance() -> None:
    gold = write_gold("1.6e-19", relative=0.01)
    assert read_gold(gold).tolerance == Tolerance(0.01) and write_gold("5") == "5"
    assert (
        judge_math(r"\boxed{1.602 \times 10^{-19}}", gold).score == 1.0 == judge_math(gold_response(gold), gold).score
    )
    assert judge_math(r"\boxed{1.7 \times 10^{-19}}", gold).score == 0.0
    for text in (
        r"\{1, 2\}",
        "{1, 2}",
        '{"answer": "5", "relative": -1}',
        '{"answer": "5", "relative": "x"}',
        '{"a": 1}',
    ):
        assert read_gold(text).tolerance == Tolerance(), text


def test_verdicts() -> None:
    assert judge_math("nothing", "5").verdict is Verdict.UNPARSABLE
    judgement = judge_math(r"\boxed{6}", "5")
    assert (judgement.verdict, judgement.answer, judgement.found_by) == (Verdict.WRONG, "6", "boxed")
    assert judge_math("#### 5", "5").verdict is Verdict.CORRECT


def test_unknown_verifier_is_named() -> None:
    assert load_verifier("math") is VERIFIERS["math"]
    with pytest.raises(ValueError, match=r"'maths'.*math"):
        load_verifier("maths")


def test_import_is_light() -> None:
    names = ("torch", "vllm", "ray", "sympy", "mpmath", "openrlhf", "deepspeed")
    code = (
        "import sys, openrlhf_cft.verify, openrlhf_cft.verify.sandbox\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(run.stdout) == []


def test_a_gold_solution_counts_for_the_answer_that_it_marks() -> None:
    gsm8k = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = 72.\n#### 72"
    assert judge_math("so 72 clips", gsm8k).verdict is Verdict.CORRECT
    assert judge_math("so 24 clips", gsm8k).verdict is Verdict.WRONG
    assert judge_math(gold_response(gsm8k), gsm8k).verdict is Verdict.CORRECT
    assert judge_math("it is 1/2", r"Half of it, so $\boxed{\frac{1}{2}}$.").verdict is Verdict.CORRECT

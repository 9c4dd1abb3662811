"""The letter that a response settles on."""

import pytest

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.choice import extract_choice, gold_letter, judge_choice
from openrlhf_cft.verify.exact import judge_exact

PHRASINGS = [
    "The answer is B.",
    "The answer is (B).",
    "The answer is **B**.",
    "The answer is **(B) insulin**.",
    "The correct answer is B: insulin",
    "The correct answer is option B.",
    "Therefore, the answer is B because sugar is low.",
    "So the best answer is B, since A raises it.",
    "Answer: B",
    "Answer: (B) insulin",
    "**Answer:** B",
    "**Answer: B. insulin**",
    "Final answer: $B$",
    r"Final answer: $\text{B}$",
    r"The answer is $\boxed{B}$.",
    r"\boxed{\text{B}}",
    r"\boxed{(B)}",
    r"\boxed{\text{(B) insulin}}",
    r"\boxed{B. insulin}",
    r"\boxed{\textbf{B}}",
    r"A is wrong, C is wrong: \boxed{b}",
    "#### B",
    "B",
    "B.",
    "(B)",
    "b)",
    "B) insulin",
    "B. insulin\n\nIt lowers the sugar.",
    "**B. insulin**",
    "Let us see.\nA. no\nC. no\n\nB",
    "A and C raise it.\n\n(B) insulin",
    "I would choose B.",
    "I choose option (B).",
    "We select B as it lowers sugar.",
    "I'd go with B.",
    "Option B is correct.",
    "B is the correct answer.",
    "(B) is the most appropriate treatment, so B is the best choice.",
    "Choice B is right.",
    "The correct option is B.",
    "The correct choice is: B",
    "The most likely diagnosis is (B) diabetes.",
    "The answer to this question is B.",
    "The answer is therefore B.",
    "The answer is A... wait, no. The answer is B.",
    "Is the answer A? The answer is B.",
    "The answer is not A. The answer is B.",
    "It must be option B, from what we know.",
    "This is best treated with (B).",
    "A patient like this needs insulin. The answer is B",
    "the answer is b.",
    "The answer is “B”.",
    "The answer should be B.",
    "The answer would be (b) insulin.",
    "<answer>B</answer>",
    "The answer is:\n\nB",
    "The answer is\n**B**",
]  # fmt: skip


@pytest.mark.parametrize("text", PHRASINGS)
def test_usual_phrasings(text: str) -> None:
    found = extract_choice(text)
    assert found is not None and found[0] == "B"
    assert judge_choice(text, "B").verdict is Verdict.CORRECT
    assert judge_choice(text, "C").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "A patient has low sugar.",
        "I think it is insulin.",
        "The answer is a good one.",
        "The answer is A good one.",
        "The answer is insulin.",
        "The answer is Both.",
        "Either (A) or (B).",
        "The answer is A or B.",
        "The answer is A and C.",
        r"\boxed{insulin}",
        r"\boxed{A, B}",
        r"\boxed{A and B}",
        r"\boxed{Beta}",
        "Options: (A) one (B) two (C) three",
        "B12 is a vitamin.",
        "Because of that, Apples.",
    ],
)
def test_no_letter_is_no_guess(text: str) -> None:
    assert extract_choice(text) is None
    assert judge_choice(text, "A").verdict is Verdict.UNPARSABLE


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("b", "B"), ("(B)", "B"), ("B. insulin", "B"), (r"\boxed{B}", "B"), ("insulin", None), ("", None)],
)
def test_gold_letters(answer: str, letter: str | None) -> None:
    assert gold_letter(answer) == letter


def test_exact() -> None:
    assert judge_exact(" Paris\n", "Paris").verdict is Verdict.CORRECT
    assert judge_exact("It is \\boxed{Paris}.", "Paris ").verdict is Verdict.CORRECT
    assert judge_exact("It is\n#### Paris", "Paris").verdict is Verdict.CORRECT
    assert judge_exact("paris", "Paris").verdict is Verdict.WRONG
    assert judge_exact("It is Paris", "Paris").verdict is Verdict.WRONG
    assert judge_exact(" \n", "Paris").verdict is Verdict.UNPARSABLE


def test_scores_and_gold_responses() -> None:
    for name, answer in (("math", "1/2"), ("choice", "C"), ("exact", "a b")):
        verifier = VERIFIERS[name]
        response = verifier.gold_response(answer)
        assert response is not None
        judgement = verifier.judge(response, answer, "")
        assert (judgement.verdict, judgement.score) == (Verdict.CORRECT, 1.0)
        other = verifier.judge("\\boxed{A}", answer, "")
        assert (other.verdict, other.score) == (Verdict.WRONG, 0.0)
        assert verifier.judge("", answer, "").score == 0.0

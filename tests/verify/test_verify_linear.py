"""Whatever the text, the time is linear in its length: of each regular expression, of each verifier, of the reward."""

# ruff: noqa: E501

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator

import pytest
from cpu_time import cpu_seconds

import openrlhf_cft.verify
from openrlhf_cft import reward
from openrlhf_cft.evaluation import majority
from openrlhf_cft.verify.choice import judge_choice
from openrlhf_cft.verify.equality import MAX_CHARS, equal, forget
from openrlhf_cft.verify.exact import judge_exact
from openrlhf_cft.verify.math import judge_math
from openrlhf_cft.verify.special_tokens import without_special_tokens

# Repeated, each is hard for some regular expression: what may be read in two ways, or read again from each place.
UNITS = """1 1,111 1/1 1e1 . .. ... , ; : - -- ( ) () [ { } {} \\ \\\\ $ $1 $1$ | ' " ` * ** _ __ ^ ^{ _{ < <a> <| <|a|> << <<1>> [a] [EOS] & # #### = x= x<
a A I A. (A) A,B AorB answer answer: answeris Answer: boxed \\boxed \\boxed{ \\boxed{1} \\boxed{1}, \\fbox{ \\frac \\frac{1}{ \\sqrt{ \\text{ \\left( \\begin{ \\end{
\\overline{1} \\pm \\cup \\prime ^{\\prime e.g. i.e. a.m. p.m. Mr. not no n't is or to and half minus-1 twelve hundred 1million ½ ² ₁ − × ｜ ▁ 🎉 \u200b \u0301""".split()
UNITS += [
    " ",
    "\n",
    "\t",
    "a ",
    "A ",
    "1 ",
    "1\n",
    "x ",
    "is ",
    "not ",
    "no ",
    "or ",
    "the ",
    "of ",
    "A or ",
    "A, ",
    "(A) ",
    "1, ",
]
UNITS += [
    "\nQ: ",
    "The answer is 1\nQuestion: ",
    "answer is ",
    "the answer is A ",
    "answer to a ",
    "answer of ",
    "not A but ",
    "it is ",
    "so A ",
    "1 or ",
    "$ ",
    ". ",
]
UNITS += [
    "</s>\n",
    "<b> ",
    "<|im_end|> ",
    "1 \\! ",
    "\\boxed{1} ",
    "\\boxed{1} and ",
    "A is ",
    "option A ",
    "e.g. ",
    "\\text{and}",
]
FACTOR = 16  # four times twice as long
LONGEST = 2.5**4  # as much time: 2.5 times for twice the length. What is quadratic takes 256 times as much


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """The compiled regular expressions of `verify/`, `reward.py` and the majority votes, by name."""
    modules = [
        importlib.import_module(f"openrlhf_cft.verify.{m.name}")
        for m in pkgutil.iter_modules(openrlhf_cft.verify.__path__)
    ]
    for module in (*modules, reward, majority):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{module.__name__.removeprefix('openrlhf_cft.')}.{name}", value


def seconds(call: Callable[[str], object], text: str, repeat: int = 1) -> float:
    return cpu_seconds(functools.partial(call, text), repeat)


def too_slow(call: Callable[[str], object], unit: str, length: int, suffix: str = "") -> str | None:
    """How the time grows from `length` characters to `FACTOR` times as many, where that is faster than it should be."""
    short, long = (unit * (n // len(unit)) + suffix for n in (length, FACTOR * length))
    if seconds(call, long) < 0.02:  # what is not linear takes longer
        return None
    first, last = seconds(call, short, 5), seconds(call, long, 3)
    return None if last <= LONGEST * max(first, 0.0005) else f"{unit!r}{suffix}: {first:.4f} and {last:.4f} s"


NAMES = dict(patterns())


@pytest.mark.parametrize("name", NAMES)
def test_every_regular_expression(name: str) -> None:
    pattern = NAMES[name]

    def call(text: str) -> None:
        for _ in pattern.finditer(text):
            pass
        pattern.fullmatch(text)

    slow = [found for unit in UNITS if (found := too_slow(call, unit, 1_000, "!"))]
    assert not slow, slow


CALLS: dict[str, Callable[[str], object]] = {
    "math": lambda text: judge_math(text, "5"),
    "math, after the phrase": lambda text: judge_math("The answer is " + text, "5"),
    "math, boxed": lambda text: judge_math("\\boxed{" + text + "}", "5"),
    "choice": lambda text: judge_choice(text, "B"),
    "choice, after the phrase": lambda text: judge_choice("The answer is " + text, "B"),
    "exact": lambda text: judge_exact(text, "5"),
    "special tokens": without_special_tokens,
    "votes": majority.normalised,
}


@pytest.mark.parametrize("name", CALLS)
def test_every_verifier(name: str) -> None:
    slow = [found for unit in UNITS if (found := too_slow(CALLS[name], unit, 500))]
    assert not slow, slow


@pytest.mark.parametrize("unit", UNITS)
def test_an_answer_takes_milliseconds(unit: str) -> None:
    """Of the longest answers that are read at all; so a judgement is far below its limit."""
    for text in (unit * (MAX_CHARS // len(unit)), unit * (500 // len(unit)), "1" + unit * (200 // len(unit)) + "1"):
        forget()
        assert seconds(lambda text: equal(text, "x+1"), text) < 0.5, text[:80]


def response(text: str, prompt: Callable[[str], str]) -> None:
    try:
        reward.response_of(text, prompt(text))
    except ValueError:
        pass


# What runs in the trainer's process: the response is cut from a query, whose prompt may not be as it was.
QUERIES: dict[str, Callable[[str], str]] = {
    "no prompt": lambda text: "",
    "the prompt": lambda text: text[:100],
    "another prompt": lambda text: text[5 : len(text) // 2] + "!",
    "a prompt that was cut": lambda text: text[len(text) // 8 :],
}


@pytest.mark.parametrize("name", QUERIES)
def test_what_runs_outside_the_sandbox(name: str) -> None:
    slow = [found for unit in UNITS if (found := too_slow(lambda text: response(text, QUERIES[name]), unit, 6_250))]
    assert not slow, slow


def main() -> None:
    """Prints how long that takes for 100 kB."""
    for name, prompt in QUERIES.items():
        cut = functools.partial(response, prompt=prompt)
        worst = max((seconds(cut, unit * (100_000 // len(unit)), 5), unit) for unit in UNITS)
        print(f"{name}: at most {1000 * worst[0]:.1f} ms, for {worst[1]!r}")


if __name__ == "__main__":
    main()

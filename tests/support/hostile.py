"""Hostile responses: what a model could write to execute, to hang, to exhaust, or to confuse what judges it."""

# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

GOLD = "1/2"

TOWERS = [
    "9**9**9**9", "9^9^9^9", "9^{9^{9^{9}}}", "10**10**10", "2**2**2**2**2**2", "(9**9)**(9**9)", "9**-9**9**9",
    "((9!)!)!", "9!!!!", "99999999!", "(10^8)!", "factorial(9**9)", "1/9**9**9", "x**9**9**9", "(x+1)**99999",
    "(x+y)^{1000000}", "sqrt(9**9**9)", r"\sqrt[9**9**9]{2}", r"2^{2^{2^{2^{2^{2}}}}}", r"\frac{9^{9^{9^9}}}{7}",
    "1e999999999", "1e-999999999", "0.1[6]**9**9", "9" * 4000, "1/" + "9" * 900, "0." + "3" * 1500, "7**7**7 % 5",
    r"\binom{10^9}{5*10^8}", r"\gcd(9^{9^9}, 3)", r"\log(9^{9^{9}})",
]  # fmt: skip

NESTING = [
    "(" * 400 + "1" + ")" * 400, "(" * 900, ")" * 900, "{" * 900 + "1" + "}" * 900, "[" * 900 + "1" + "]" * 900,
    "-" * 900 + "1", "+" * 900 + "1", "~" * 900 + "1", "\\frac{" * 300, "\\frac{1}{" * 150 + "2" + "}" * 150,
    "\\sqrt{" * 300 + "2" + "}" * 300, "\\left(" * 200 + "x" + "\\right)" * 200, "\\text{" * 300 + "a" + "}" * 300,
    "^{" * 300 + "2" + "}" * 300, "_{" * 300 + "2" + "}" * 300, "x" + "^2" * 400, "|" * 900, "\\begin{pmatrix}" * 60,
    "\\{" * 400 + "\\}" * 400, "1" + "/2" * 400, "2" + "**2" * 300, "(1,)" * 300, "\\\\" * 900, "\\boxed{" * 100,
    "a" + "!" * 900, "\\overline{" * 200 + "1" + "}" * 200,
]  # fmt: skip

INFINITE = [
    r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\sum_{n=1}^{\infty} (-1)^n", r"\prod_{n=1}^{\infty} n",
    r"\sum_{n=1}^{10^9} n^n", r"\int_0^\infty e^{-x^2} dx", r"\int_0^\infty \sin(x^x) dx", r"\lim_{x\to 0} x^{x^{x}}",
    r"\lim_{n \to \infty} (1+1/n)^{n^n}", r"\prod_{k=1}^{100000} (x-k)", r"\int \int \int x^{x} dx dy dz",
    r"\sum_{a=1}^{99} \sum_{b=1}^{99} \sum_{c=1}^{99} a^b", r"\frac{d^{99}}{dx^{99}} x^{x}", "oo-oo", "zoo*0", "nan",
    "1/0", "0/0", "0^0", "0**-1", r"\infty - \infty", r"\tan(\pi/2)", r"\log 0", r"x \mod 0",
]  # fmt: skip

UNICODE = [
    "١٢٣", "१२३", "１２３", "½", "²", "Ⅷ", "𝟙/𝟚", "1\u20442", "٣.٥", "一二三", "1\u00a0000", "1\u200b/2", "\u202e2/1",
    "\u202a1/2\u202c", "\u2066x\u2069", "ｘ＋１", "𝓍", "ﷺ" * 200, "e\u0301" * 300, "\ufeff5", "\ud7ff", "\U0010ffff",
    "👩‍👩‍👧‍👦" * 100, "ß", "İ", "ı", "ſ", "\u0660" * 900, "−" * 900 + "1", "\u2212\u2212 5", "（1/2）", "＿＿import＿＿",
]  # fmt: skip

BYTES = [
    "1\x002", "\x00", "\x00" * 900, "\x1b[2J", "\x07\x08", "1\r2", "1\x0b2", "1\x0c2", "\x85", "\u2028", "1\n\n2", "\t",
    " " * 900, "1/2\x00", "\x7f", "\\x00", "\\u0000", "\\N{NULL}", "\x1a", "#", "1#2", "\\", "\\\\", "$", "$$", "$$$",
    "%", "&", "~", "^", "_", "{", "}", "}{", "\\}", "\\{", "\\frac", "\\frac{", "\\frac{1", "\\frac{1}", "\\frac{}{}",
    "\\sqrt", "\\sqrt[", "\\text", "\\text{", "\\begin{", "\\begin{pmatrix}", "\\end{pmatrix}", "\\left(", "\\right)",
    "\\left", "^", "1^", "^2", "_2", "1_", "()", "(,)", "[,]", "{,}", "=", "==", "x=", "=x", "<", ">=", ",", ",,,", "..",
    "...", ".", "-", "--", "+", "*", "/", "//", "1//0", "!", "'", '"', "`", ";",
]  # fmt: skip


def code(canary: Path) -> list[str]:
    """Python that would leave a file, stop the process or read a secret, in the ways that reach past a filter."""
    touch = f"touch {canary}"
    return [
        f"__import__('os').system('{touch}')", f"open('{canary}','w')", f"exec(\"open('{canary}','w')\")",
        f"eval('open(\\'{canary}\\',\\'w\\')')", f"(lambda: open('{canary}', 'w'))()", f"[open('{canary}','w')][0]",
        f"().__class__.__base__.__subclasses__()[0]('{canary}')", f"type('x', (), {{}})('{canary}')", "x.x", "(1).real",
        "x.__class__", "sqrt.__globals__", "S('1').func", f"print(open('{canary}','w'))", "exit()", "quit()",
        "__import__('sys').exit()", "__import__('os').kill(1,9)", "__import__('os')._exit(0)", "raise SystemExit",
        "os.getpid()", "globals()", "locals()", "vars()", "dir()", "help()", "input()", "breakpoint()", "id(1)*0+1/2",
        "int('1')", "chr(49)", "ord('1')", "all(1)", "max(1,2)", "sum([1])", "range(9**9)", "list(range(9**9))",
        "'1'*9**9", "(1,)*9**9", "b'1'", "f'{1}'", "[i for i in range(9**9)]", "{1:2}[1]", "lambda x: x", "x if x else 1",
        "1 or 2", "not 1", "1 and 2", "x:=1", "yield 1", "await x", "import os", "from os import *", "while True: pass",
        "def f(): pass", "class A: pass", "del x", "assert 0", "@x", "1;2", "1\\\n+1", "Function('f')(1)",
        "Symbol('x')", "Lambda(x, x)(1)", "sympify('1')", "parse_expr('1')", "lambdify(x, x)(1)", "solve(x**99-x-1)",
        "factorint(10**99+7)", "isprime(10**9999)", "nsimplify('1')", "preview(x)", "N(pi, 10**9)", "pi.evalf(10**8)",
        "E**(10**9)", "Integral(x**x)", f"\\input{{{canary}}}", "\\input{/etc/passwd}", "\\include{/etc/passwd}",
        f"\\write18{{{touch}}}", f"\\immediate\\write18{{{touch}}}", "\\def\\x{\\x\\x}\\x", "\\loop\\repeat",
        "\\newcommand{\\x}{\\x}\\x", "\\catcode`\\@=11", "\\csname x\\endcsname", f"\\text{{os.mkdir('{canary}')}}",
        f"$({touch})", f"`{touch}`", f"; {touch}", f"| {touch}", f"&& {touch}", "{{7*7}}", "${7*7}", "<%= 7*7 %>",
        "<script>alert(1)</script>", "%s%s%s%n", "{0.__class__}", "' OR 1=1 --", "!!python/object/apply:os.getpid []",
    ]  # fmt: skip


def megabytes() -> list[str]:
    """Whole responses of a megabyte and more, not to be put into a box."""
    return [
        "word " * 200_000 + "5", "\\boxed{5}" * 110_000, "1" * 1_000_000, "\\boxed{" + "1," * 500_000 + "}",
        "\\boxed{" * 140_000, "{" * 1_000_000, "}" * 1_000_000, "\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
        "the answer is " * 70_000, "####" * 250_000, "1/" * 500_000, "1," * 500_000, "-" * 1_000_000 + "1",
        "\\frac" * 200_000, "\\boxed{" + "\\frac{1}{" * 100_000 + "2" + "}" * 100_001, "\n" * 1_000_000, "$" * 1_000_000,
        "1 " * 500_000, "." * 1_000_000, "1.1." * 250_000, "answer: " * 120_000, "\\" * 1_000_000, "\x00" * 1_000_000,
        "\\boxed{" + "9" * 1_000_000 + "}", "\\boxed{" + "(" * 1_000_000 + "}", "\\boxed{" + "x+" * 400_000 + "x}",
        "option A " * 100_000, "(A) " * 250_000, "A " * 500_000, "A and " * 150_000, "B is correct " * 80_000,
    ]  # fmt: skip


def corpus(canary: Path) -> dict[str, list[str]]:
    """Responses by kind. `canary` is a path that executed code would create."""
    answers = {
        "towers": TOWERS,
        "nesting": NESTING,
        "infinite": INFINITE,
        "unicode": UNICODE,
        "bytes": BYTES,
        "code": code(canary),
    }
    boxed = {kind: [f"so \\boxed{{{answer}}}" for answer in texts] for kind, texts in answers.items()}
    return {**boxed, "megabytes": megabytes()}

r"""Benchmarks by name: where each one is, how a row becomes a question and a gold answer, and which verifier judges.

    load_benchmark("gsm8k", directory=None).rows          # columns id, question, answer

Sources of the columns (looked up in November 2026; we could not reach a hub to load the data sets themselves):

- Q: the evaluation of github.com/QwenLM/Qwen2.5-Math at a45202b. Its `evaluation/data/NAME/test.jsonl` holds each
  mathematical benchmark of the paper except MATH-500. Its `evaluation/parser.py` reads questions and answers.
  `--eval.benchmark_dir` takes its folder `evaluation/data`, or one with snapshots of the hub's repositories.
- L: github.com/EleutherAI/lm-evaluation-harness, `lm_eval/tasks/{gsm8k,asdiv,minerva_math,medqa}`.
- U: public code that loads the repository and reads these columns; we saw no data set card.

| name | columns from | |
|---|---|---|
| gsm8k | Q, L | |
| math500 | L | `minerva_math500.yaml`; its `answer` column: U |
| svamp | Q | both splits, 1,000 questions, as Q's `data_loader.py` takes them |
| asdiv | Q, L | answers of several parts are left out, as in Q; converted by the hub, because its loader is a script |
| mawps | Q | Q's 2,065 questions; the hub has other data sets of this name, so the file is taken from GitHub |
| carp_en | Q | the file on GitHub: we found no repository on the hub |
| tabmwp | Q, U | columns: Q; repository: U. The size of its one split, `train`, shows that it is the test set |
| minerva_math | U | four independent programs; Q has `problem` and `solution` instead |
| gaokao2023en | Q, U | one split, `train` |
| olympiadbench | Q, U | text only, English, competition; one split, `train` |
| college_math | Q, U | |
| medqa | L | four options |

Differences from Q's evaluator:

- all of its benchmarks: in Q, numbers within 0.01 % are equal, and so are a percentage, its hundredth and its
  hundredfold. Here numbers are equal exactly, unless a line below says otherwise. An option's letter is equal to its
  text if the gold answer has both.
- minerva_math: Q accepts numbers within 0.01 %; here within 1 %, as the benchmark's authors do (arXiv 2206.14858).
- olympiadbench: here a number is right within the row's `error`, which Q does not read.
- tabmwp: Q turns fractions into decimals; here 1/3 is not 0.33.
- gaokao2023en: rows without an answer are counted and left out here; in Q every response to them is wrong.
- Q has no math500 and no medqa.

Prompts ask for a boxed answer after the question, in the user's turn, like Q's prompt type `qwen-boxed`. As in Q, a
question with the answer yes, no, true or false names the two choices at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.local_benchmarks import load_local
from openrlhf_cft.verify.gold import read_gold, write_gold

if TYPE_CHECKING:
    from datasets import Dataset

QUESTION, ANSWER = "question", "answer"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
BOXED_LETTER = "Please reason step by step, and put the letter of your choice within \\boxed{}."
QWEN_FILES = (
    "https://raw.githubusercontent.com/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data"
)

Row = Mapping[str, Any]
Problem = tuple[str, str]  # question and gold answer, see `verify.gold`
# Added at the end of a question, by its gold answer, as in Q (`parse_question`).
SUFFIXES = {"yes": " (Yes or No)", "no": " (Yes or No)", "true": " (True or False)", "false": " (True or False)"}
MINERVA_TOLERANCE = 0.01
_DECIMAL = re.compile(r"\d+(?:\.\d+)?(?:[eE]-?\d{1,3})?|\.\d+")
_TEXT = re.compile(r"\\text(?:bf|rm)?\{([^{}]*)\}")
_NOTHING = re.compile(r"[\s$\\{}.,]*")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark."""

    repository: str  # on the Hugging Face hub, or the address of a JSONL file
    split: str
    problem: Callable[[Row], Problem | None]  # None: the row is not part of the benchmark
    config: str | None = None
    revision: str | None = None
    verifier: str = "math"
    instruction: str = BOXED

    @property
    def is_file(self) -> bool:
        """Whether the benchmark is a file on the web, not a repository on the hub."""
        return self.repository.startswith("https://")


def _columns(question: str, answer: str, *others: tuple[str, str]) -> Callable[[Row], Problem]:
    """Read the question and the answer from these columns, or else from the first pair of `others` that a row has."""

    def problem(row: Row) -> Problem:
        for q, a in ((question, answer), *others):
            if q in row and a in row:
                return str(row[q]).strip(), str(row[a]).strip()
        raise KeyError(question if question not in row else answer)

    return problem


def _without_dollars(row: Row) -> Problem:
    """Answers are whole formulas, `$4\\sqrt{2}$`; the dollar signs are removed (Q, `parse_ground_truth`)."""
    return str(row["question"]).strip(), str(row["answer"]).replace("$", "").strip()


def _svamp(row: Row) -> Problem:
    """The story and the question are in two columns; the story may lack its full stop."""
    body = row["Body"].strip()
    return f"{body if body.endswith('.') else body + '.'} {row['Question'].strip()}", _number(row["Answer"])


def _asdiv(row: Row) -> Problem | None:
    """The unit follows the number, `9 (apples)`. Semicolons separate several answers; such rows are left out."""
    if ";" in row["answer"]:
        return None
    return f"{row['body'].strip()} {row['question'].strip()}", re.sub(r"\(.*?\)", "", row["answer"]).strip()


def _mawps(row: Row) -> Problem:
    return row["input"].strip(), _number(row["target"])


def _number(value: Any) -> str:
    """A number as text: 145.0, given as a number or as text, becomes 145."""
    number = float(value)
    return str(int(number)) if number.is_integer() else str(number)


def _tabmwp(row: Row) -> Problem:
    """A table as text, a question, and in some rows options."""
    title = f'regarding "{row["table_title"]}" ' if row["table_title"] else ""
    options = f" Please select from the following options: {row['choices']}" if row["choices"] else ""
    return (
        f"Read the following table {title}and answer a question:\n{row['table']}\n{row['question']}{options}",
        str(row["answer"]).strip(),
    )


def _minerva(row: Row) -> Problem:
    """The answer, or in Q's copy the solution. Numbers are measured values, so they get a tolerance."""
    question, answer = _columns("question", "answer", ("problem", "answer"), ("problem", "solution"))(row)
    return question, write_gold(answer, relative=MINERVA_TOLERANCE)


def _olympiadbench(row: Row) -> Problem | None:
    """The answer is a list of one formula, which may hold several values, separated by commas. Some have an error."""
    if row.get("language", "English") != "English":
        return None  # a snapshot of the repository may have all its configurations in one
    error = str(row.get("error") or "").partition(",")[0]
    answer = row["final_answer"][0].strip().strip("$")
    return row["question"].strip(), write_gold(answer, absolute=float(error) if _DECIMAL.fullmatch(error) else 0.0)


def _medqa(row: Row) -> Problem:
    """Four endings, and the index of the right one."""
    options = "\n".join(f"{letter}. {row[f'ending{i}']}" for i, letter in enumerate("ABCD"))
    return f"{row['sent1'].strip()}\n{options}", "ABCD"[int(row["label"])]


BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark("openai/gsm8k", "test", _columns("question", "answer"), config="main"),
    "math500": Benchmark("HuggingFaceH4/MATH-500", "test", _columns("problem", "answer")),
    "svamp": Benchmark("ChilleD/SVAMP", "train+test", _svamp),
    "asdiv": Benchmark("EleutherAI/asdiv", "validation", _asdiv, config="asdiv", revision="refs/convert/parquet"),
    "mawps": Benchmark(f"{QWEN_FILES}/mawps/test.jsonl", "train", _mawps),
    "carp_en": Benchmark(f"{QWEN_FILES}/carp_en/test.jsonl", "train", _columns("content", "answer")),
    "tabmwp": Benchmark("Arietem/tabmwp", "train", _tabmwp),
    "minerva_math": Benchmark("math-ai/minervamath", "test", _minerva),
    "gaokao2023en": Benchmark("MARIO-Math-Reasoning/Gaokao2023-Math-En", "train", _without_dollars),
    "olympiadbench": Benchmark("Hothan/OlympiadBench", "train", _olympiadbench, config="OE_TO_maths_en_COMP"),
    "college_math": Benchmark("di-zhang-fdu/College_Math_Test", "test", _without_dollars),
    "medqa": Benchmark("GBaker/MedQA-USMLE-4-options-hf", "test", _medqa, verifier="choice", instruction=BOXED_LETTER),
}


@dataclass(frozen=True)
class Problems:
    """The questions of a benchmark."""

    rows: Dataset  # columns `id` (the row's number in the benchmark), `question` and `answer`
    without_answer: int  # rows that are left out because they have no gold answer


def load_benchmark(name: str, directory: str | None = None, max_samples: int | None = None) -> Problems:
    """Load the questions of a benchmark, in its own order, each with the benchmark's instruction.

    Args:
        name: one of `BENCHMARKS`.
        directory: folder of local copies, see `local_benchmarks`; None for the hub.
        max_samples: load at most this many questions, the first ones.

    Raises:
        InputError: it cannot be loaded (the message says what to do), has unexpected columns, or has no rows.
    """
    import datasets

    benchmark = BENCHMARKS[name]
    problems: list[dict[str, str]] = []
    without_answer = 0
    for number, row in enumerate(_rows(name, benchmark, directory)):
        if max_samples is not None and len(problems) >= max_samples:
            break
        try:
            problem = benchmark.problem(row)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"--data.dataset: row {number} of {name!r} is not as that benchmark's rows are "
                f"({type(error).__name__}: {error}); it has {sorted(row)}"
            ) from error
        if problem is None:
            continue
        question, answer = problem
        if _NOTHING.fullmatch(read_gold(answer).answer):
            without_answer += 1
            continue
        word = _TEXT.sub(r"\1", answer).strip("$ .").lower()
        question += SUFFIXES.get(word, "") if benchmark.verifier == "math" else ""
        problems.append({"id": str(number), QUESTION: f"{question}\n{benchmark.instruction}", ANSWER: answer})
    if not problems:
        raise InputError(f"--data.dataset: {name!r} has no rows")
    return Problems(datasets.Dataset.from_list(problems), without_answer)


def _rows(name: str, benchmark: Benchmark, directory: str | None) -> Dataset:
    """The unchanged rows, from a local copy or from the hub."""
    import datasets

    try:
        if directory is not None:
            return load_local(name, benchmark, directory)
        if benchmark.is_file:
            return datasets.load_dataset("json", data_files=benchmark.repository, split=benchmark.split)
        return datasets.load_dataset(
            benchmark.repository, benchmark.config, split=benchmark.split, revision=benchmark.revision
        )
    except Exception as error:  # datasets raises many types for a bad file, an unreachable hub
        reason = " ".join(str(error).split())
        where = f"in {directory!r}" if directory is not None else f"at {benchmark.repository!r}"
        raise InputError(
            f"--data.dataset: cannot load the benchmark {name!r} {where} ({type(error).__name__}: {reason}); "
            f"without a network, or in its place, give a folder with a copy, {name}.jsonl, as --eval.benchmark_dir"
        ) from error

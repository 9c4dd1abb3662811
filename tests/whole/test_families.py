"""Every use of the package with a tiny model of every known family, whose token ids, masks and losses are known.

Uses that start an engine or a training run have the mark `all`, except with one family each. All others annotate with
the table of the model in place of an engine.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from family_checks import check_given, check_own, check_prompt
from family_models import EVERY_TIME, FAMILIES, HEAVY, QUESTIONS, RIGHT, Family, cells
from table_model import without_engine
from train_helpers import launch, run_command, scalars, tail

from openrlhf_cft import reward
from openrlhf_cft.annotation.job import annotate
from openrlhf_cft.cli import masks, view
from openrlhf_cft.cli.annotate import job_of
from openrlhf_cft.data.location import location
from openrlhf_cft.data.records import (
    ID,
    MASK,
    PROMPT,
    PROMPT_IDS,
    RESPONSE,
    RESPONSE_IDS,
    read_rows,
    tokenizer_fingerprint,
)
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.samples import read_questions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KEYS = ["--data.input_key", "question", "--data.label_key", "answer"]
ENGINE = ["--vllm.dtype", "float32"]


@dataclass(frozen=True)
class Subject:
    """A family, its checkpoint, and two annotated data sets that were made without an engine."""

    name: str
    family: Family
    model: Path
    questions: Path
    own: Path
    given: Path

    def flags(self, out: Path, *more: str) -> list[str]:
        """The flags of `annotate`."""
        flags = ["--model.model_name_or_path", str(self.model), "--data.dataset", str(self.questions), *KEYS]
        return [*flags, *self.family.rendering, *ENGINE, "--ckpt.output_dir", str(out), *more]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Make the subject of a family at its first use, and keep it for the other cells."""

    @functools.cache
    def made(name: str) -> Subject:
        folder, family = tmp_path_factory.mktemp(name), FAMILIES[name]
        questions = folder / "questions.jsonl"
        questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        model = family.write(folder / "model")
        subject = Subject(name, family, model, questions, folder / "own", folder / "given")
        with without_engine(family.table):
            annotate(job_of(subject.flags(subject.own)))
            annotate(job_of(subject.flags(subject.given, "--data.output_key", "solution")))
        return subject

    return made


def command(*arguments: str) -> None:
    result = run_command([sys.executable, "-m", *arguments], timeout=900)
    assert result.returncode == 0, tail(result)


def annotate_own(subject: Subject, folder: Path, _: Subject) -> None:
    """The annotate command on a real engine."""
    command("openrlhf_cft.cli.annotate", *subject.flags(folder / "out"))
    check_own(subject.family, list(read_rows(folder / "out")))


def annotate_given(subject: Subject, folder: Path, _: Subject) -> None:
    """Given texts, and one with reasoning in it: R1's template drops the reasoning, so that row is refused."""
    check_given(subject.family, list(read_rows(subject.given)))
    reasoned = {**QUESTIONS[0], "solution": "<think>1 and 1</think>It is 2"}
    (folder / "questions.jsonl").write_text(json.dumps(reasoned) + "\n")
    flags = subject.flags(folder / "out", "--data.output_key", "solution")
    flags[flags.index(str(subject.questions))] = str(folder / "questions.jsonl")
    with without_engine(subject.family.table):
        if subject.name == "deepseek_r1":
            with pytest.raises(InputError, match="row 'a': column 'solution': the chat template changes the response"):
                annotate(job_of(flags))
            return
        annotate(job_of(flags))
    (row,) = read_rows(folder / "out")
    assert row[RESPONSE_IDS] == subject.family.given_ids(reasoned["question"], reasoned["solution"])
    assert row[RESPONSE].strip() == reasoned["solution"]


def transfer_masks(subject: Subject, folder: Path, other: Subject) -> None:
    """To another family and back: the same token ids, and in between the other family's BOS and end of turn."""
    for check, data in ((check_own, subject.own), (check_given, subject.given)):
        before = list(read_rows(data))
        check(subject.family, before)
        there = transferred(data, other, folder / f"{data.name}-there")
        back = transferred(folder / f"{data.name}-there", subject, folder / f"{data.name}-back")
        for old, new, again, asked in zip(before, there, back, RIGHT, strict=True):
            check_prompt(other.family, new, asked["question"])
            assert new[RESPONSE] == old[RESPONSE]
            assert (again[PROMPT_IDS], again[RESPONSE_IDS]) == (old[PROMPT_IDS], old[RESPONSE_IDS])
            assert new[MASK][-1] == again[MASK][-1] == 1
            lost = [at for at, weight in enumerate(old[MASK]) if weight > again[MASK][at]]
            assert not lost
            if data == subject.own:
                assert again[MASK] == old[MASK]


def transferred(data: Path, target: Subject, out: Path) -> list[dict[str, Any]]:
    flags = ["--to", str(target.model), "--data.input_key", "question", *target.family.rendering]
    assert masks.main(["transfer", str(data), *flags, "--out", str(out)]) == 0
    return list(read_rows(out))


def write_view(subject: Subject, folder: Path, _: Subject) -> None:
    """The page holds each row's token ids, their texts and weights. Only the last token is special."""
    for check, data in ((check_own, subject.own), (check_given, subject.given)):
        rows = list(read_rows(data))
        check(subject.family, rows)
        page = folder / f"{data.name}.html"
        assert view.main([str(data), "--out", str(page)]) == 0
        (text,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', page.read_text(), re.S)
        payload = json.loads(text)
        for row, (row_id, question, gold, ((_, verdict, numbers, weights, _),), _) in zip(
            rows, payload["rows"], strict=True
        ):
            assert (row_id, question, gold, verdict) == (row[ID], row["question"], "2", "correct")
            tokens = [payload["vocabulary"][number] for number in numbers]
            assert [token[0] for token in tokens] == row[RESPONSE_IDS]
            assert "".join(token[1] for token in tokens[:-1]) == row[RESPONSE]
            special = [len(token) > 3 and token[3] == 1 for token in tokens]
            assert special == [False] * (len(tokens) - 1) + [True]
            assert weights == "".join(str(int(weight)) for weight in row[MASK])


def export_masks(subject: Subject, folder: Path, _: Subject) -> None:
    """The same token ids with labels where the mask is 1, and conversations of a question and its response."""
    for check, data in ((check_own, subject.own), (check_given, subject.given)):
        rows = list(read_rows(data))
        check(subject.family, rows)
        ids = [row[PROMPT_IDS] + row[RESPONSE_IDS] for row in rows]
        trained = [
            [-100] * len(row[PROMPT_IDS])
            + [token if weight else -100 for token, weight in zip(row[RESPONSE_IDS], row[MASK], strict=True)]
            for row in rows
        ]
        for kind in ("trl", "axolotl", "llamafactory"):
            out = folder / f"{data.name}-{kind}"
            assert masks.main(["export", str(data), "--format", kind, "--out", str(out)]) == 0
            if kind == "llamafactory":
                exported = datasets.load_from_disk(str(out / "tokenized"))["train"]
            else:
                exported = datasets.load_dataset(str(out), split="train", cache_dir=str(folder / "cache"))
            assert (exported["input_ids"][:], exported["labels"][:]) == (ids, trained)
        conversations = json.loads((folder / f"{data.name}-llamafactory" / "train.json").read_text())
        asked = [row["question"] if subject.family.chat else subject.family.text(row["question"]) for row in RIGHT]
        assert [[turn["value"] for turn in row["conversations"]] for row in conversations] == [
            [question, row[RESPONSE]] for question, row in zip(asked, rows, strict=True)
        ]


def train_step(subject: Subject, folder: Path, _: Subject) -> None:
    """One step on all rows: its loss follows from the table, and the checkpoint has the same tokenizer."""
    own, given = list(read_rows(subject.own)), list(read_rows(subject.given))
    check_own(subject.family, own)
    check_given(subject.family, given)
    rows = own + given
    flags = ["--critical_mask", "--model.model_name_or_path", str(subject.model)]
    flags += ["--data.dataset", f"{subject.own},{subject.given}", "--train.batch_size", str(len(rows))]
    flags += ["--train.micro_batch_size", "2", "--train.max_epochs", "1", "--adam.lr", "1e-3"]
    flags += ["--ds.attn_implementation", "sdpa", "--ds.param_dtype", "fp32", "--logger.logging_steps", "1"]
    flags += ["--ckpt.output_dir", str(folder / "sft"), "--logger.tensorboard_dir", str(folder / "logs")]
    result = launch(["--module", "openrlhf_cft.cli.train_sft", *flags], timeout=900)
    assert result.returncode == 0, tail(result)
    costs = [
        cost
        for row in rows
        for cost, weight in zip(subject.family.table.nll(row[RESPONSE_IDS]), row[MASK], strict=True)
        if weight
    ]
    logs = scalars(folder / "logs")
    assert logs["train/critical_tokens"] == [len(costs)]
    assert logs["train/critical_loss"] == pytest.approx([sum(costs) / len(costs)], rel=1e-4)
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder / "sft")
    assert tokenizer_fingerprint(saved) == tokenizer_fingerprint(subject.family.tokenizer)
    assert saved.chat_template == subject.family.tokenizer.chat_template


def evaluate_model(subject: Subject, folder: Path, _: Subject) -> None:
    """Greedy responses as annotated, their accuracy, and the entropy and loss that follow from the table."""
    table = subject.family.table
    check_own(subject.family, list(read_rows(subject.own)))
    flags = ["--compare", f"tiny={subject.model}", "--data.dataset", str(subject.questions), *KEYS, *ENGINE]
    flags += [*subject.family.rendering, "--eval.n_samples", "1", "--eval.max_new_tokens", "16"]
    flags += ["--eval.annotated", str(subject.own), "--ckpt.output_dir", str(folder / "out")]
    command("openrlhf_cft.cli.evaluate", *flags)
    asked = list(read_questions(location(folder / "out" / "samples" / "questions--tiny.parquet")))
    assert [question.greedy.token_ids for question in asked] == [table.response] * len(QUESTIONS)
    assert [question.greedy.correct for question in asked] == [row in RIGHT for row in QUESTIONS]
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    figures = metrics["results"]["questions"]["tiny"]["figures"]
    assert figures["accuracy"]["value"] == pytest.approx(len(RIGHT) / len(QUESTIONS))
    assert figures["entropy"]["value"] == pytest.approx(table.entropy, rel=1e-3)
    critical = metrics["annotated"]["figures"]["tiny"]
    assert critical["critical_entropy"]["value"] == pytest.approx(table.entropy, rel=1e-3)
    assert critical["critical_nll"]["value"] == pytest.approx(table.nll(table.response)[-1], rel=1e-3)


def reward_responses(subject: Subject, folder: Path, _: Subject) -> None:
    """Responses as OpenRLHF decodes them, special tokens included, with the model's tokenizer known and unknown."""
    tokenizer = subject.family.tokenizer
    for check, data in ((check_own, subject.own), (check_given, subject.given)):
        rows = list(read_rows(data))
        check(subject.family, rows)
        prompts = [row[PROMPT] for row in rows]
        queries = [
            tokenizer.decode([*tokenizer(row[PROMPT], add_special_tokens=False)["input_ids"], *row[RESPONSE_IDS]])
            for row in rows
        ]
        assert all(query.endswith(subject.family.end) for query in queries)
        for known in ("", str(subject.model)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(reward.MODEL, known)
                reward._special_tokens.cache_clear()
                responses = [reward.response_of(*pair).strip() for pair in zip(queries, prompts, strict=True)]
                assert responses == [row[RESPONSE].strip() for row in rows]
                assert reward.reward_func(queries, prompts, ["2"] * len(rows))["rewards"].tolist() == [1.0] * len(rows)
                logs = reward.reward_func(queries, prompts, ["5"] * len(rows))["extra_logs"]
                assert logs["verdict/wrong"].tolist() == [1.0] * len(rows)
            reward._special_tokens.cache_clear()


CELLS = {
    "own": annotate_own,
    "given": annotate_given,
    "transfer": transfer_masks,
    "view": write_view,
    "export": export_masks,
    "SFT": train_step,
    "evaluate": evaluate_model,
    "reward": reward_responses,
}
NEXT = dict(zip(FAMILIES, [*list(FAMILIES)[1:], *FAMILIES], strict=False))  # the other family of a transfer


@pytest.mark.parametrize(
    ("family", "use"),
    [pytest.param(family, use, marks=[] if always else pytest.mark.all) for family, use, always in cells()],
)
def test_each_use_with_each_family(subject: Callable[[str], Subject], family: str, use: str, tmp_path: Path) -> None:
    CELLS[use](subject(family), tmp_path, subject(NEXT[family]))


@pytest.mark.all
@pytest.mark.parametrize("family", FAMILIES)
def test_given_responses_on_an_engine(subject: Callable[[str], Subject], family: str, tmp_path: Path) -> None:
    command("openrlhf_cft.cli.annotate", *subject(family).flags(tmp_path / "out", "--data.output_key", "solution"))
    check_given(FAMILIES[family], list(read_rows(tmp_path / "out")))


def test_make_test_runs_each_heavy_use_once() -> None:
    """Each use that starts an engine or a training run, and each with a family of its own."""
    assert sorted(use for _, use in EVERY_TIME) == sorted(HEAVY)
    assert len({family for family, _ in EVERY_TIME}) == len(HEAVY)

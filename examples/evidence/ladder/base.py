"""The second study's settings, its base model, and the gate that this has to pass before anything is compared.

The questions are the word problems of `problems.py`. The base is made by stock SFT on worked solutions to other
stories, in parts of less than ten minutes each. The gate looks at validation questions only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from arms import Arm, column
from common import Settings, evaluate, shell
from data import annotate_file, questions
from ladder.arms import ALL_ROWS, SAMPLED_ROWS
from ladder.text import as_text, ended_row, eos_of, write_whole
from training import precision, sft

from openrlhf_cft.data.model_files import weights_fingerprint

HERE = Path(__file__).parent
TEMPLATE = "Question: {}\nAnswer:"
GATE = 128  # validation questions; half of them are annotated
DRAWN = 250  # test questions that are sampled; all of them are answered greedily
MOST_BASE = 10_000  # solutions; made at once, so that another base of more parts begins as this one
HELD = 120  # validation questions on whose annotated responses losses are taken
BEGINNINGS = {"gate": ("validation", GATE), "held": ("validation", HELD), "drawn": ("test", DRAWN)}
# The paper is about such a base: figure, whether it must be at least or at most the bound, bound.
BOUNDS = (
    ("mean response, tokens", ">=", 60.0),
    ("greedy accuracy", ">=", 0.35),
    ("greedy accuracy", "<=", 0.65),
    ("Pass@1 / greedy accuracy", ">=", 0.7),
    ("Pass@16 - greedy accuracy", ">=", 0.15),
    ("critical share", "<=", 0.15),
)


@dataclass(frozen=True)
class Ladder(Settings):
    """The settings of the first study, and how the base is made."""

    given: str | None = None  # a folder with questions, in place of those of problems.py
    base_part_rows: int = 600
    base_parts: int = 5
    base_rate: float = 1e-4
    sweep_seeds: int = 3
    rl_rates: list[float] = field(default_factory=lambda: [3e-6, 1e-5])
    rl_parts: int = 4
    rated: int = 45  # training questions whose alternatives get success rates
    rated_parts: int = 9
    rated_samples: int = 4
    deep: int = 9  # of these, how many get the rates from which long horizons are told
    deep_parts: int = 9
    deep_samples: int = 16

    epochs: ClassVar[int] = 1
    micro_batch: ClassVar[int] = 8

    @property
    def sizes(self) -> dict[str, Any]:
        """Not where given questions are: the folder is another one on another machine."""
        return super().sizes | {"given": self.given is not None}

    @property
    def arms(self) -> Sequence[Arm]:
        return ALL_ROWS + SAMPLED_ROWS

    @property
    def form(self) -> list[str]:
        """A template without a system prompt, of which a training would spend a fifth of its time."""
        return ["--data.input_template", TEMPLATE]

    @property
    def prompts(self) -> list[str]:
        """Without BOS, which stock SFT and GRPO never add."""
        return [*self.form, "--data.add_bos", "never"]

    def training_file(self, arm: Arm) -> Path:
        return super().training_file(arm) if column(arm) else as_text(self, arm.data)

    def base(self) -> str:
        """The last part of the base; all parts are trained that are missing."""
        return str(self.base_part(self.base_parts - 1))

    def base_part(self, part: int) -> Path:
        """The model after a part of the SFT on other stories: trained where it is missing."""
        path = self.run_dir / "checkpoints" / f"base-{part}"
        if not (path / "config.json").exists():
            before = super().base() if part == 0 else str(self.base_part(part - 1))
            rows = self.questions("base").read_text().splitlines()[part * self.base_part_rows :]
            data = self.run_dir / "questions" / f"base-{part}.jsonl"
            ended = [ended_row(json.loads(row), eos_of(before)) for row in rows[: self.base_part_rows]]
            write_whole(data, "".join(json.dumps(row) + "\n" for row in ended))
            flags = ["--train.max_epochs", "1", "--train.batch_size", "8", "--train.seed", part]
            flags += ["--adam.lr", self.base_rate, "--lr_scheduler", "constant_with_warmup"]
            sft(self, f"base-{part}", before, data, *flags)
        return path

    def questions(self, name: str) -> Path:
        """`base`, `train`, `validation`, `test`, or the beginning of one, see `BEGINNINGS`.

        Always the same, made where it is missing, or taken from `given`, which may have `other`, too.
        """
        path = self.run_dir / "questions" / f"{name}.jsonl"
        sizes = {split: getattr(self, split) for split in ("train", "validation", "test")} | {"base": MOST_BASE}
        if path.exists():
            return path
        if name in BEGINNINGS or self.given:
            whole, size = BEGINNINGS.get(name, (None, sizes.get(name)))
            file = self.questions(whole) if whole else Path(str(self.given)) / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "".join(file.read_text().splitlines(keepends=True)[:size]))
        else:
            flags = [word for split, size in sizes.items() for word in (f"--{split}", size)]
            shell(self, "questions", sys.executable, HERE / "problems.py", "--output_dir", path.parent, *flags)
        return path


def ladder_questions(study: Ladder) -> dict[str, Any]:
    """Their number and fingerprint, and the number of steps of every test question, in the order of results."""
    steps = {row["id"]: row["steps"] for row in map(json.loads, study.questions("test").open())}
    return {**questions(study), "test_steps": "".join(str(steps[row_id]) for row_id in sorted(steps))}


def train_base_part(study: Ladder, part: int) -> dict[str, Any]:
    """Train a part of the base. Of the last one, what tells it from another base is kept."""
    path = study.base_part(part)
    known = {"weights": weights_fingerprint(str(path))} if part == study.base_parts - 1 else {}
    return {"checkpoint": path.name, "precision": precision()[1], **known}


def require_gate(study: Ladder) -> None:
    """Nothing is compared on a base that the claim is not about, nor on two bases.

    Raises:
        SystemExit: with the table, and what to change.
    """
    found = study.result("gate")
    if not all(found["passed"]):
        change = "try other --base_parts or --base_rate, with another --results (and --run_dir)"
        raise SystemExit(f"evidence: the base does not pass the gate; {change}\n{show(found)}")
    made, now = study.result(f"base-{study.base_parts - 1}"), {"precision": precision()[1]}
    now["weights"] = weights_fingerprint(study.base())
    for name, value in now.items():
        if made[name] != value:
            where = f"{study.results} is about another base: its {name} are {made[name]}, and here {value}"
            raise SystemExit(f"evidence: {where}. Bring its checkpoint back, or give another --results and --run_dir")


def gate(study: Ladder) -> dict[str, Any]:
    """Whether the base is where the paper's claim is about; see BOUNDS."""
    sampled = evaluate(study, "gate", study.base(), "gate", 16, "--eval.entropy_positions", 0)
    figures = sampled["figures"]
    file = study.run_dir / "questions" / "gate-annotated.jsonl"
    file.write_text("".join(study.questions("gate").read_text().splitlines(keepends=True)[: GATE // 2]))
    annotated = annotate_file(study, file, "gate-annotated")
    values: dict[str, float | None] = {
        "mean response, tokens": figures["greedy_length"],
        "greedy accuracy": figures["accuracy"],
        "Pass@1 / greedy accuracy": figures["pass@1"] / figures["accuracy"] if figures["accuracy"] else None,
        "Pass@16 - greedy accuracy": figures["pass@16"] - figures["accuracy"],
        "critical share": annotated["critical_share"],
    }
    return {"values": values, "passed": list(passed(values)), **sampled, "annotation": annotated}


def passed(values: dict[str, float | None]) -> Iterator[bool]:
    """Whether each of BOUNDS is kept; what is not known is not: without a right answer, there
    is no ratio to it and no critical share."""
    for name, side, bound in BOUNDS:
        value = values[name]
        yield value is not None and (value >= bound if side == ">=" else value <= bound)


def show(found: dict[str, Any]) -> str:
    """The gate as a table."""
    lines = ["| the gate | wanted | found |", "|---|---|---|"]
    for (name, side, bound), kept in zip(BOUNDS, found["passed"], strict=True):
        value = found["values"][name]
        text = "not known" if value is None else f"{value:.3f}"
        lines.append(f"| {name} | {side} {bound:g} | {text}{'' if kept else ', not kept'} |")
    return "\n".join(lines)


def ladder_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of this study, and the defaults that are its own."""
    flags.add_argument(
        "--given", default=None, help="folder with base, train, validation and test.jsonl; see gsm8k.py"
    )
    flags.add_argument("--base_part_rows", type=int, default=Ladder.base_part_rows, help="solutions of each part")
    flags.add_argument("--base_parts", type=int, default=Ladder.base_parts, help="parts in which the base is trained")
    flags.add_argument("--base_rate", type=float, default=Ladder.base_rate, help="its learning rate")
    flags.add_argument("--sweep_seeds", type=int, default=Ladder.sweep_seeds, help="seeds of every learning rate")
    flags.add_argument("--rl_rates", type=float, nargs="+", default=[3e-6, 1e-5], help="learning rates tried for GRPO")
    flags.add_argument("--rl_parts", type=int, default=Ladder.rl_parts, help="steps of the study for one run of GRPO")
    for name, what in (("rated", "an arm's weights"), ("deep", "long horizons")):
        size, parts, samples = (getattr(Ladder, field) for field in (name, f"{name}_parts", f"{name}_samples"))
        flags.add_argument(f"--{name}", type=int, default=size, help=f"questions with success rates for {what}")
        flags.add_argument(f"--{name}_parts", type=int, default=parts, help="steps in which they are annotated")
        flags.add_argument(f"--{name}_samples", type=int, default=samples, help="continuations of each alternative")
    flags.set_defaults(run_dir=Path("runs/ladder"), results=HERE / "results", length=280, samples=16)
    flags.set_defaults(train=500, validation=240, test=1000, mix="ladder", parts=5)
    flags.set_defaults(rates=[3e-5, 1e-4, 3e-4], rl_steps=100)

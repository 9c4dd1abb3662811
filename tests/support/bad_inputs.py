"""The list of bad input, `tests/project/bad_inputs.tsv`, and the files that it is about.

`python tests/support/bad_inputs.py` prints the list as a Markdown table.
"""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LIST = Path(__file__).parents[1] / "project" / "bad_inputs.tsv"
COLUMNS = "--data.input_key question --data.label_key answer"
GOOD = {  # flags that a command works with; those of a case come after them, and win
    "annotate": f"--model.model_name_or_path model --data.dataset q.jsonl {COLUMNS} --ckpt.output_dir out",
    "evaluate": f"--data.dataset q.jsonl {COLUMNS} --ckpt.output_dir out",
    "train_sft": "--model.model_name_or_path model --data.dataset annotated --data.max_len 64 --train.batch_size 4 "
    "--train.micro_batch_size 2 --ckpt.output_dir out --ckpt.path out/checkpoints",
}
ONCE = {"evaluate": "--compare base=model", "train_sft": "--critical_mask"}  # unless the case has the flag itself


@dataclass(frozen=True)
class Case:
    """One bad input to one command."""

    kind: str  # of bad input
    command: str  # and the verb of `masks`
    given: str  # arguments, as a shell takes them
    sentence: str  # regular expression of what is said

    @property
    def module(self) -> str:
        """The command's module."""
        return f"openrlhf_cft.cli.{self.command.split()[0]}"

    @property
    def arguments(self) -> list[str]:
        """All arguments."""
        name, *verb = self.command.split()
        once = ONCE.get(name, "")
        once = "" if once.split(" ")[0] in self.given else once
        return [*verb, *shlex.split(f"{GOOD.get(name, '')} {once} {self.given}")]


def cases() -> list[Case]:
    """The list."""
    lines = LIST.read_text().splitlines()
    return [Case(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def make_files(folder: Path) -> None:
    """Everything that the list names, in `folder`."""
    from train_helpers import make_model

    make_model(folder / "model")
    make_questions(folder)
    make_models(folder)
    make_annotated(folder)
    make_others(folder)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def questions(**changes: Any) -> list[dict[str, Any]]:
    """Four rows; `changes` are of the last."""
    rows: list[dict[str, Any]] = [{"id": f"q{i}", "question": f"what is {i}?", "answer": str(i)} for i in range(4)]
    rows[-1] |= changes
    return rows


def make_questions(folder: Path) -> None:
    """Data sets of questions: `q.jsonl`, which is good, and others."""
    import pyarrow.csv

    jsonl(folder / "q.jsonl", questions())
    whole = (folder / "q.jsonl").read_bytes()
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(whole * 200)[:-40])
    (folder / "cut.jsonl").write_bytes(whole[:-20])
    (folder / "latin1.jsonl").write_bytes(whole.replace(b"what is 2", b"combien \xe9"))
    (folder / "folder").mkdir()
    table = pa.Table.from_pylist(questions())
    pyarrow.csv.write_csv(table, folder / "q.csv")
    pq.write_table(table, folder / "q.parquet")
    (folder / "cut.parquet").write_bytes((folder / "q.parquet").read_bytes()[:-30])
    (folder / "text.parquet").write_text("no Parquet at all")
    jsonl(folder / "twice.jsonl", questions(id="q0"))
    jsonl(folder / "null_id.jsonl", questions(id=None))
    jsonl(folder / "null_question.jsonl", questions(question=None))
    jsonl(folder / "empty_question.jsonl", questions(question="  "))
    jsonl(folder / "null_answer.jsonl", questions(answer=None))
    for name, value in {"struct": {"value": 3}, "list": ["3"], "bool": True}.items():
        jsonl(folder / f"{name}.jsonl", [{**row, "answer": value} for row in questions()])
    for name, value in {"nan": float("nan"), "inf": float("inf"), "bytes": b"\xff\xfe"}.items():
        answers = pa.array([value] * 4)
        pq.write_table(table.set_column(2, "answer", answers), folder / f"{name}.parquet")
    jsonl(folder / "answers.jsonl", [{**row, "solution": row["answer"]} for row in questions(answer="")])
    chats = {
        "no_role": [{"content": "what is 3?"}],
        "assistant": [{"role": "user", "content": "what is 3?"}, {"role": "assistant", "content": "3"}],
        "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is 3?"}],
        "negative": [5, -1],
        "beyond": [5, 600],
    }
    for name, value in chats.items():
        jsonl(folder / f"{name}.jsonl", [{**row, "question": value} for row in questions()])
    jsonl(folder / "null_solution.jsonl", [{**row, "solution": None} for row in questions()])
    jsonl(folder / "numbers.jsonl", [{**row, "answer": 3} for row in questions(id="q9")][-1:])


def make_models(folder: Path) -> None:
    """Checkpoints of which each lacks something."""

    def broken(name: str, change: Callable[[Path], Any]) -> None:
        change(Path(shutil.copytree(folder / "model", folder / name)))

    def edit(path: Path, **values: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def without_stop(path: Path) -> None:
        edit(path / "tokenizer_config.json", eos_token=None)
        edit(path / "config.json", eos_token_id=None)
        (path / "generation_config.json").unlink(missing_ok=True)

    def template(text: str) -> Callable[[Path], Any]:
        return lambda path: (path / "chat_template.jinja").write_text(text)

    broken("no_config", lambda path: (path / "config.json").unlink())
    broken("no_json", lambda path: (path / "config.json").write_text("{"))
    broken("no_tokenizer", lambda path: [file.unlink() for file in path.glob("token*")])
    broken("no_weights", lambda path: (path / "model.safetensors").unlink())
    broken("no_stop", without_stop)
    broken("unknown_type", lambda path: edit(path / "config.json", model_type="qwen99", architectures=["Qwen99"]))
    broken("other", lambda path: edit(path / "tokenizer_config.json", eos_token="<pad>"))
    messages = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    broken("chat", template(messages))
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    broken("no_system", template(refusal + messages))
    broken("bad_template", template("{% for m in messages %}"))


def make_annotated(folder: Path) -> None:
    """Annotated data sets: `annotated`, which is good, and others."""
    from train_helpers import make_rows, write_rows
    from transformers import AutoTokenizer

    from openrlhf_cft.data import records

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    about = {"model": "model", "tokenizer_fingerprint": records.tokenizer_fingerprint(tokenizer)}

    def rows() -> list[dict[str, Any]]:
        made = make_rows(9)
        for row in made:
            row[records.PROMPT] = tokenizer.decode(row[records.PROMPT_IDS])
            row[records.RESPONSE] = tokenizer.decode(row[records.RESPONSE_IDS])
        return made

    def broken(name: str, change: Callable[[list[float]], Any]) -> None:
        made = rows()
        change(made[4][records.MASK])
        write_rows(folder / name, made, about)

    write_rows(folder / "annotated", rows(), about)
    write_rows(folder / "stranger", rows(), {"tokenizer_fingerprint": "0123456789abcdef"})
    write_rows(folder / "no_rows", [], about)
    write_rows(folder / "none_critical", [{**row, records.MASK: [0.0] * len(row[records.MASK])} for row in rows()])
    without = [{name: value for name, value in row.items() if name != records.MASK} for row in rows()]
    write_rows(folder / "no_mask", without, about)
    broken("longer", lambda weights: weights.append(1.0))
    broken("below_zero", lambda weights: weights.__setitem__(0, -1.0))
    broken("not_a_number", lambda weights: weights.__setitem__(0, float("nan")))
    beyond = rows()
    beyond[4][records.RESPONSE_IDS][0] = 600
    write_rows(folder / "beyond", beyond, about)
    (folder / "cut").mkdir()
    whole = (folder / "annotated" / "part-0.parquet").read_bytes()
    (folder / "cut" / "part-0.parquet").write_bytes(whole[:-30])
    group = pq.read_metadata(folder / "annotated" / "part-0.parquet").row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    (weights,) = [column for column in columns if column.path_in_schema.startswith(records.MASK)]
    first = weights.dictionary_page_offset or weights.data_page_offset
    last = first + weights.total_compressed_size
    (folder / "damaged").mkdir()
    (folder / "damaged" / "part-0.parquet").write_bytes(whole[:first] + b"\xff" * (last - first) + whole[last:])


def make_others(folder: Path) -> None:
    """Verifiers' files, a folder of another run, links to where nobody can write."""
    (folder / "broken.py").write_text("def reward_func(:\n")
    (folder / "raising.py").write_text("raise OSError('no license')\n")
    (folder / "nothing.py").write_text("def score(text):\n    return 1\n")
    (folder / "seven.py").write_text("def reward_func(queries, prompts, labels):\n    return 7\n")
    other_run = folder / "other_run" / ".annotate"
    other_run.mkdir(parents=True)
    (other_run / "config.json").write_text(json.dumps({"format": 2, "criterion": "strict-9"}))
    (other_run / "lock").touch()


def markdown() -> str:
    """The list as a table: a line a kind, with its commands, and what the first of them says."""
    kinds: dict[str, list[Case]] = {}
    for case in cases():
        kinds.setdefault(case.kind, []).append(case)
    lines = ["| | bad input | commands | is said |", "|---|---|---|---|"]
    for number, (kind, all_) in enumerate(kinds.items(), 1):
        names = ", ".join(dict.fromkeys(case.command for case in all_))
        said = all_[0].sentence.replace("(.|\\n)*", " … ").replace(".*", " … ").replace("\\", "").replace("|", "\\|")
        lines.append(f"| {number} | {kind} | {names} | `{said.strip()}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())

"""A tiny checkpoint for each known model family, and the uses of the package that are tested with it.

    python tests/support/family_models.py       # print the table of docs/annotate.md
    FAMILIES["gemma"].write(tmp_path / "model")     # a checkpoint whose greedy response is ":2<end_of_turn>"

Tokenizers and chat templates come from `chat_families.py`, weights from `table_model.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_families import CHAT, gpt2

USES = ("own", "given", "transfer", "view", "export", "SFT", "evaluate", "reward")
# Each of these starts an engine or a training run: `make test` runs it with one family, `make test-all` with all.
HEAVY = ("own", "SFT", "evaluate")
EVERY_TIME = {("gemma", "own"), ("qwen", "SFT"), ("llama3", "evaluate")}
PLAIN_TEMPLATE = "Question: {}\n"  # for the family without a chat template

QUESTIONS = [
    {"id": "a", "question": "1 + 1?", "answer": "2", "solution": "Answer: 2"},
    {"id": "b", "question": "2 + 3?", "answer": "5", "solution": "Answer: 2"},  # the response is wrong
    {"id": "c", "question": "5 - 3?", "answer": "2", "solution": "So it is 2"},
]
RIGHT = [row for row in QUESTIONS if row["answer"] == "2"]  # the rows that are annotated


@dataclass(frozen=True)
class Family:
    """The facts about a family that tests rely on, written down by hand."""

    make: Callable[[], Any]  # the tokenizer
    stands_for: str  # real models
    begin: str | None  # the token that begins each prompt, once
    end: str  # the token that ends a response
    stops: tuple[str, ...]  # of generation_config.json
    pads: bool  # whether the tokenizer has a token for padding

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The family's tokenizer; without a padding token where the real models have none."""
        tokenizer = self.make()
        if not self.pads:
            tokenizer.pad_token = None
        return tokenizer

    @property
    def chat(self) -> bool:
        """Whether the family has a chat template."""
        return self.tokenizer.chat_template is not None

    @property
    def rendering(self) -> list[str]:
        """The command-line flags that render a prompt."""
        return ["--data.apply_chat_template"] if self.chat else ["--data.input_template", PLAIN_TEMPLATE]

    def text(self, question: str, response: str | None = None) -> str:
        """The prompt as the template writes it, or the conversation where a response is given."""
        if not self.chat:
            return PLAIN_TEMPLATE.format(question) + ("" if response is None else response + self.end)
        turns = [{"role": "user", "content": question}]
        if response is not None:
            turns.append({"role": "assistant", "content": response})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=response is None))

    def prompt_ids(self, question: str) -> list[int]:
        """The prompt's token ids. The chat template writes BOS; without a template the tokenizer adds its own."""
        return list(self.tokenizer(self.text(question), add_special_tokens=not self.chat)["input_ids"])

    def given_ids(self, question: str, response: str) -> list[int]:
        """The response's token ids in the whole conversation, up to the end of its turn."""
        text = self.text(question, response)
        ids = list(self.tokenizer(text, add_special_tokens=not self.chat)["input_ids"])
        behind = ids[len(self.prompt_ids(question)) :]
        return behind[: behind.index(self.id_of(self.end)) + 1]

    def id_of(self, token: str) -> int:
        """The id of a token."""
        return int(self.tokenizer.convert_tokens_to_ids(token))

    @functools.cached_property
    def table(self) -> Any:
        """The model's `table_model.Table`."""
        from table_model import Table

        return Table.of(self.tokenizer, self.text(QUESTIONS[0]["question"]), self.end)

    def write(self, folder: Path) -> Path:
        """Save the checkpoint."""
        from table_model import write_table_model

        write_table_model(self.table, folder, [self.id_of(token) for token in self.stops])
        self.tokenizer.save_pretrained(folder)
        return folder


def _family(name: str, stands_for: str, begin: str | None, end: str, *others: str, pads: bool = False) -> Family:
    return Family((CHAT | {"gpt2": gpt2})[name], stands_for, begin, end, (*others,) or (end,), pads)


FAMILIES = {
    # A base model: generation_config.json does not name the token that ends a turn.
    "qwen": _family("qwen", "Qwen2.5 and Qwen3 base", None, "<|im_end|>", "<|endoftext|>", pads=True),
    "llama3": _family("llama3", "Llama 3.x", "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|eot_id|>"),
    "gemma": _family("gemma", "Gemma 2 and 3", "<bos>", "<end_of_turn>", "<eos>", "<end_of_turn>", pads=True),
    "deepseek_r1": _family("deepseek_r1", "DeepSeek-R1 and its distills", "<|begin|>", "<|end|>", pads=True),
    "mistral": _family("mistral", "Mistral 7B", "<s>", "</s>"),
    "gpt2": _family("gpt2", "GPT-2 and other base models without a template", None, "<|endoftext|>"),
}


def cells() -> list[tuple[str, str, bool]]:
    """The whole matrix as (family, use, whether `make test` runs it)."""
    return [(family, use, use not in HEAVY or (family, use) in EVERY_TIME) for family in FAMILIES for use in USES]


def table() -> str:
    """The matrix as Markdown."""
    lines = ["| family | stands for | " + " | ".join(USES) + " |", "|---" * (len(USES) + 2) + "|"]
    when = {(family, use): "always" if always else "in make test-all" for family, use, always in cells()}
    for name, family in FAMILIES.items():
        lines.append(f"| {name} | {family.stands_for} | " + " | ".join(when[name, use] for use in USES) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

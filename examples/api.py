"""Everything from Python, without a command: after `make quickstart`,

    python examples/api.py [--run_dir runs/quickstart] [--model MODEL] [--questions QUESTIONS]

Each function below stands by itself. None needs a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openrlhf_cft
from openrlhf_cft.annotation.annotator import Annotator
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.location import location
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.evaluation.samples import read_questions


def look(annotated: Path) -> None:
    """Read an annotated data set, a batch in memory at a time."""
    data = openrlhf_cft.load_annotated(annotated)
    tokens = critical = 0
    for row in data.rows(["critical_mask"]):
        tokens, critical = tokens + len(row["critical_mask"]), critical + sum(w > 0 for w in row["critical_mask"])
    print(f"{data.count()} rows under {data.metadata['criterion']}, {critical} of {tokens} tokens critical")


def judge() -> None:
    """Ask the verifier, which runs in a process of its own."""
    for response in ("so it is $5.00", "so it is $6.00", "I do not know"):
        print(f"{response!r}: {openrlhf_cft.judge(response, '5').verdict}")


class CountingModel:
    """A `Generator` of ten lines: it says a number of its own after each token. Any engine can stand here."""

    stop_token_ids = frozenset([0])
    max_model_len = 64

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """Count from the last token down to 0, which ends it; the second choice is always one more."""
        tokens = list(range(token_ids[-1] - 1, -1, -1))[: sampling.max_tokens]
        top = [[(token, -0.1), (token + 1, -2.5), (token + 2, -4.0)] for token in tokens]
        return Generation(tokens, tokens[-1:] == [0], [-0.1] * len(tokens), top if sampling.top_logprobs else [])

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        """Given responses are not asked about here."""
        raise NotImplementedError


async def annotate_one() -> None:
    """Find the critical tokens of one response, with any generator and the real verifier."""
    with openrlhf_cft.VerifierPool("exact") as verifier:

        def decode(token_ids: Sequence[int]) -> str:
            return " ".join(map(str, token_ids))

        annotator = Annotator(CountingModel(), verifier, decode, AnnotateSettings(top_k=3, max_new_tokens=8))
        outcome = await annotator.annotate(Question([4], "3 2 1 0", "count down from 4"))
    print(f"{outcome.response}: {outcome.critical_mask} after {outcome.rollouts} rollouts")


def annotate_with_vllm(model: Path, questions: Path, out: Path) -> None:
    """The whole job: Ray, vLLM, verifiers, resumption. Call it again with the same arguments, and it goes on."""
    summary = openrlhf_cft.annotate(
        str(model),
        str(questions),
        out,
        input_key="question",
        label_key="answer",
        apply_chat_template=True,
        max_samples=8,
        max_new_tokens=48,
    )
    print(f"{summary['annotated']} of {summary['rows_read']} rows annotated, {summary['critical_share']:.0%} critical")


def derive(annotated: Path, out: Path) -> None:
    """A mask of as many tokens of each row, chosen at random: what CFT has to be better than."""
    shares = openrlhf_cft.derive(annotated, out, {"random": "random", "strict_2": "strict-2"})
    print({name: f"{share:.1%}" for name, share in shares.items()})


def train(model: Path, annotated: Path, column: str) -> None:
    """A training loop of your own: logits where the loss is, and sum(w nll) / sum(w) of a batch."""
    import datasets
    import torch
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    strategy: Any = SimpleNamespace(print=print)  # OpenRLHF's, where there is one
    rows = datasets.load_dataset("parquet", data_dir=str(annotated), split="train")
    tokenizer = AutoTokenizer.from_pretrained(model)
    dataset = openrlhf_cft.CriticalTokenDataset(rows, tokenizer, 512, strategy, mask_column=column)
    actor = openrlhf_cft.CriticalTokenActor(str(model), attn_implementation="sdpa").float().train()
    optimizer = torch.optim.AdamW(actor.parameters(), lr=1e-5)
    for number, (ids, flags, weights) in enumerate(DataLoader(dataset, 4, collate_fn=dataset.collate_fn)):
        weights = weights[:, :-1]  # of the next token
        log_probs = actor(ids, attention_mask=flags, return_logprobs=True)
        loss = -(weights * log_probs).sum() / weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {number + 1}: loss {loss.item():.4f} over {int((weights > 0).sum())} tokens")
        if number == 2:
            break


def pass_at(samples: Path, k: int) -> None:
    """Pass@k of a checkpoint, from the responses that `evaluate` kept."""
    solved = []
    for question in read_questions(location(samples)):
        correct = sum(sample.correct for sample in question.samples)
        estimate = openrlhf_cft.pass_at_k(len(question.samples), correct, k)
        if estimate is None:
            raise SystemExit(f"{samples}: Pass@{k} needs as many samples: evaluate with --eval.n_samples {k}")
        solved.append(estimate)
    print(f"Pass@{k} of {samples.stem}: {sum(solved) / len(solved):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--model", type=Path, default=None, help="default: the run's")
    parser.add_argument("--questions", type=Path, default=None, help="default: the run's held-out ones")
    args = parser.parse_args()
    run = args.run_dir
    model, questions = args.model or run / "model", args.questions or run / "questions" / "test.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        look(run / "annotated")
        judge()
        asyncio.run(annotate_one())
        annotate_with_vllm(model, questions, Path(folder, "more"))
        derive(run / "annotated", Path(folder, "with-masks"))
        train(model, Path(folder, "with-masks"), "random")
        pass_at(next((run / "evaluation" / "samples").glob("*--cft.parquet")), 4)


if __name__ == "__main__":
    main()

"""On the real engine, in float32: every Strict-k from one exhaustive run, and worked solutions that are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from literal import Literal
from test_model_files import with_own_code
from train_helpers import make_model, run_command, tail

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.data.rendering import render_prompt, response_ids
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.verify.math import judge_math

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(3600)]
CHAT = SourceSettings("x", apply_chat_template=True)
REPOSITORY = Path(__file__).parents[2]
HIGHEST_K, LENGTH = 4, 32
STOP = [" the", "1"]  # of them one ends within a word of the model's answers, one is a digit of some


@pytest.fixture(scope="module")
def model() -> Path:
    path = Path(sys.prefix) / "smollm2"
    made = run_command([sys.executable, str(REPOSITORY / "examples" / "make_model.py"), "--output_dir", str(path)])
    assert made.returncode == 0, tail(made)
    return path


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def prompt_of(tokenizer: Any, question: str) -> tuple[str, list[int]]:
    text = render_prompt(question, LiteralText(tokenizer), CHAT)
    return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])


def sums(tokenizer: Any) -> list[list[Any]]:
    import reasoning_gym

    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    items = reasoning_gym.create_dataset("chain_sum", size=40, seed=7, **options)
    return [[prompt_of(tokenizer, item["question"])[1], item["answer"], None] for item in items]


def solutions(tokenizer: Any) -> list[list[Any]]:
    """The two shortest of the worked solutions, as they are, that end in the answer."""
    import reasoning_gym

    items = list(reasoning_gym.create_dataset("gsm_symbolic", size=40, seed=7))
    rows = []
    for item in items:
        solution = item["metadata"]["answer_cot"]
        if judge_math(solution, item["answer"]).verdict is Verdict.CORRECT:
            prompt, ids = prompt_of(tokenizer, item["question"])
            rows.append(
                [
                    ids,
                    item["answer"],
                    response_ids(
                        solution,
                        item["question"],
                        prompt,
                        LiteralText(tokenizer),
                        CHAT,
                        frozenset([tokenizer.eos_token_id]),
                    ),
                ]
            )
    assert len(rows) > 10
    return sorted(rows, key=lambda row: len(row[2]))[:2]


@pytest.fixture(scope="module")
def found(model: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("engine")
    jobs: list[dict[str, Any]] = [
        {"settings": {"top_k": k, "max_new_tokens": LENGTH, "exhaustive": exhaustive}, "rows": sums(tokenizer)}
        for k, exhaustive in ((HIGHEST_K, True), (2, False), (3, False), (4, False), (HIGHEST_K, True))
    ]
    given = solutions(tokenizer)
    longest = max(len(row[2]) for row in given)
    jobs.append({"settings": {"top_k": 3, "max_new_tokens": longest}, "rows": given})
    jobs.append(
        {
            "settings": {"top_k": 3, "max_new_tokens": LENGTH, "stop": STOP, "keep_rollouts": True},
            "rows": sums(tokenizer),
        }
    )
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script, output = Path(__file__).parents[1] / "support" / "annotate_script.py", folder / "outcomes.json"
    command = [sys.executable, str(script), "--model", str(model), "--jobs", str(folder / "jobs.json")]
    result = run_command([*command, "--output", str(output)], timeout=2400)
    assert result.returncode == 0, tail(result)
    loaded: list[list[dict[str, Any]]] = json.loads(output.read_text())
    return loaded


def strict(alternatives: list[list[dict[str, Any]]], k: int) -> list[float]:
    """The mask of Strict-k, read off outcomes in which every alternative was tried."""
    return [float(all(a["verdict"] != "correct" for a in position[: k - 1])) for position in alternatives]


def test_strict_k_masks_come_out_of_one_exhaustive_run(found: list[list[dict[str, Any]]]) -> None:
    exhaustive = found[0]
    annotated = [index for index, row in enumerate(exhaustive) if row["status"] == "annotated"]
    assert len(annotated) >= 10
    for k, separate in zip((2, 3, 4, HIGHEST_K), found[1:5], strict=True):
        for index in annotated:
            assert separate[index]["response_token_ids"] == exhaustive[index]["response_token_ids"]
            assert separate[index]["critical_mask"] == strict(exhaustive[index]["alternatives"], k), (k, index)
    tried = sum(not a["skipped"] for index in annotated for p in exhaustive[index]["alternatives"] for a in p)
    positions = sum(len(exhaustive[index]["critical_mask"]) for index in annotated)
    assert tried == (HIGHEST_K - 1) * positions
    print(f"{len(annotated)} responses, {positions} positions: four runs agree with one exhaustive run")


def test_stop_strings_are_exact_in_tokens(found: list[list[dict[str, Any]]], model: Path, tokenizer: Any) -> None:
    """Responses are the free ones up to the token that completes a string, and masks those of the literal loop."""
    free, stopped = found[0], found[6]
    literal = Literal(
        str(model), lambda text, gold: judge_math(text, gold).verdict is Verdict.CORRECT, 3, LENGTH, STOP
    )
    cut = [row for row in stopped if any(string in row["response"] for string in STOP)]
    assert len(cut) > 3 and all(row["status"] != "cut_off" for row in cut)
    for before, row in zip(free, stopped, strict=True):
        assert row["response_token_ids"] == literal.cut(before["response_token_ids"])
    annotated = [
        (prompt, row) for prompt, row in zip(sums(tokenizer), stopped, strict=True) if row["status"] == "annotated"
    ]
    ends = [item for item in annotated if item[1] in cut][:4]
    assert ends, "no response that a string ends is correct, so no mask was tested"
    for (prompt, answer, _), row in ends:
        expected = literal.row(prompt, answer)
        assert (row["response_token_ids"], row["critical_mask"]) == (expected.response_ids, expected.mask)


def test_the_kept_text_of_a_rollout_is_what_was_judged(found: list[list[dict[str, Any]]], tokenizer: Any) -> None:
    judged = 0
    for (_, answer, _), row in zip(sums(tokenizer), found[6], strict=True):
        for position, alternatives in enumerate(row["alternatives"]):
            for tried in (one for one in alternatives if not one["skipped"]):
                before = [*row["response_token_ids"][:position], tried["token_id"]]
                whole = tokenizer.decode(before, skip_special_tokens=True) + tried["text"]
                correct = judge_math(whole, answer).verdict is Verdict.CORRECT
                assert correct == (tried["verdict"] == "correct")
                judged += 1
    assert judged > 20


def test_given_solutions_are_annotated_as_they_are(
    found: list[list[dict[str, Any]]], model: Path, tokenizer: Any
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    other_choice = 0
    for (prompt, _, given), row in zip(solutions(tokenizer), found[5], strict=True):
        assert row["status"] == "annotated" and row["response_token_ids"] == given
        with torch.no_grad():
            logits = reference(torch.tensor([[*prompt, *given]])).logits[0, len(prompt) - 1 : -1].double()
        for token, alternatives, values in zip(given, row["alternatives"], logits, strict=True):
            order = torch.argsort(-values, stable=True).tolist()
            best = [i for i in order[:4] if i != token][:2]
            ranks = [order.index(a["token_id"]) + 1 for a in alternatives]
            assert [a["token_id"] for a in alternatives] == best
            assert [a["rank"] for a in alternatives] == ranks
            other_choice += order[0] != token
        assert 0 < sum(row["critical_mask"]) < len(given)
    assert other_choice > 10  # where the model would have said something else, that is the first alternative
    print(f"{other_choice} given tokens are not the model's first choice")


def test_a_model_with_code_of_its_own_is_annotated(tmp_path: Path) -> None:
    """Its configuration and tokenizer load with that code only, in the engine's processes too."""
    model = with_own_code(make_model(tmp_path / "model"))
    script = """
import asyncio, sys
from openrlhf_cft.engine.generate import Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
async def run():
    engine = VllmGenerator(EngineSettings(sys.argv[1], dtype="float32"))
    print("token ids", (await engine.generate([5, 6, 7], Sampling(4))).token_ids)
    engine.close()
if __name__ == "__main__":
    asyncio.run(run())
"""
    (tmp_path / "script.py").write_text(script)
    made = run_command([sys.executable, str(tmp_path / "script.py"), str(model)])
    assert made.returncode == 0 and "token ids [" in made.stdout, tail(made)

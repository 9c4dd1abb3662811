"""Exact entropies against transformers' logits, taken literally: one response at a time, all positions, in float64."""

from __future__ import annotations

from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_helpers import VOCAB, make_model, make_rows, write_rows

from openrlhf_cft.data.location import location
from openrlhf_cft.data.records import MASK, PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.engine.scoring_process import PromptResponse, Scored, load, score, score_sequence
from openrlhf_cft.errors import JobError
from openrlhf_cft.evaluation import entropy_cache
from openrlhf_cft.evaluation.entropy import Bin, bins, by_kind, by_position, choose, of_questions
from openrlhf_cft.evaluation.entropy_cache import Unit, load_annotated, measure_units, sample_unit
from openrlhf_cft.evaluation.samples import schema


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def sequences(count: int) -> list[PromptResponse]:
    return [PromptResponse(row[PROMPT_IDS], row[RESPONSE_IDS]) for row in make_rows(count)]


def literal(model: Path, sequence: PromptResponse) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and nll of each response token by the definitions, from a plain forward."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = loaded(torch.tensor([sequence.prompt_ids + sequence.response_ids])).logits[0].double().numpy()
    entropies, nlls = [], []
    for at, token in enumerate(sequence.response_ids):
        row = logits[len(sequence.prompt_ids) + at - 1]
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        entropies.append(-(p * np.log(p)).sum())
        nlls.append(-np.log(p[token]))
    return np.array(entropies), np.array(nlls)


def test_entropies_are_those_of_the_logits(model: Path) -> None:
    asked = sequences(8)
    for sequence, found in zip(asked, score(str(model), asked, "test"), strict=True):
        entropy, nll = literal(model, sequence)
        assert found.entropy.dtype == np.float32 and len(found.entropy) == len(sequence.response_ids)
        assert np.abs(found.entropy - entropy).max() < 1e-4 and np.abs(found.nll - nll).max() < 1e-4
        assert 0 < entropy.min() and entropy.max() < np.log(VOCAB)  # neither uniform nor certain: the test can fail


@pytest.mark.parametrize("window", [1, 3, 7, 16])
def test_windows_change_nothing(model: Path, window: int) -> None:
    loaded = load(str(model))
    for sequence in sequences(4):
        whole, windowed = score_sequence(loaded, sequence), score_sequence(loaded, sequence, window)
        assert np.abs(whole.entropy - windowed.entropy).max() < 1e-5 and np.abs(whole.nll - windowed.nll).max() < 1e-5


def test_a_word_of_probability_0_adds_nothing(model: Path) -> None:
    import torch

    loaded = load(str(model))
    head = torch.nn.Linear(64, VOCAB)
    head.weight.data.copy_(loaded.lm_head.weight.data)
    head.bias.data.zero_()
    head.bias.data[100:] = -torch.inf
    loaded.lm_head = head
    found = score_sequence(loaded, PromptResponse([5, 6], [7, 8]))
    assert np.isfinite(found.entropy).all() and found.entropy.max() < np.log(100)


def test_a_checkpoint_that_does_not_load_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"nowhere.*--eval.entropy_positions 0"):
        score(str(tmp_path / "nowhere"), sequences(1), "test")


def test_a_process_that_is_killed_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does where memory runs out."""
    started = SpawnProcess.start

    def start(process: SpawnProcess) -> None:
        started(process)
        process.kill()

    monkeypatch.setattr(SpawnProcess, "start", start)
    with pytest.raises(JobError, match="killed, perhaps for lack of memory"):
        score(str(model), sequences(1), "test")


def test_the_choice_takes_one_response_of_each_question_first() -> None:
    lengths = {(f"q{q}", n): 5 + q for q in range(10) for n in range(4)}
    chosen = choose(lengths, 120, seed=1)
    assert [number for _, number in chosen] == sorted(number for _, number in chosen)
    assert {row_id for row_id, number in chosen if number == 0} == {f"q{q}" for q in range(10)}
    taken = [lengths[key] for key in chosen]
    assert sum(taken[:-1]) < 120 <= sum(taken)
    assert choose(lengths, 120, seed=1) == chosen != choose(lengths, 120, seed=2)
    assert choose(lengths, 0, seed=1) == [] and set(choose(lengths, 10**6, seed=1)) == set(lengths)


def test_bins_of_positions_have_no_gap() -> None:
    for longest in (1, 2, 5, 64, 1000):
        parts = bins(longest)
        assert [p for part in parts for p in range(part.first, part.last + 1)][:longest] == list(range(1, longest + 1))
        assert parts[-1].first <= longest
    assert bins(16)[:5] == [Bin(1, 1), Bin(2, 2), Bin(3, 3), Bin(4, 5), Bin(6, 7)]


def scored(*values: float) -> Scored:
    return Scored(np.array(values, np.float32), np.array(values, np.float32) / 2)


def test_sums_by_question_position_and_kind() -> None:
    found = {("a", 0): scored(1, 2, 4), ("a", 1): scored(8), ("c", 0): scored(16, 32)}
    assert of_questions(["a", "b", "c"], found).tolist() == [[15, 4], [0, 0], [48, 2]]
    parts = by_position(["a", "b", "c"], found)
    assert {part.first: ratios.tolist() for part, ratios in parts.items()} == {
        1: [[9, 2], [0, 0], [16, 1]],
        2: [[2, 1], [0, 0], [32, 1]],
        3: [[4, 1], [0, 0], [0, 0]],
    }
    kinds = by_kind([[1, 0, 0.5], [0]], [scored(1, 2, 4), scored(8)])
    assert kinds["critical_entropy"].tolist() == [[5, 2], [0, 0]] and kinds["other_nll"].tolist() == [[1, 1], [4, 1]]
    assert by_position([], {}) == {}


def test_what_is_known_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = sequences(3)
    calls: list[int] = []

    def counting(model: str, found: list[PromptResponse], name: str) -> list[Scored]:
        calls.append(len(found))
        return [scored(*range(len(sequence.response_ids))) for sequence in found]

    monkeypatch.setattr(entropy_cache, "score", counting)
    model, another = (str(make_model(tmp_path / f"model-{seed}", seed=seed)) for seed in range(2))
    unit = Unit(location(tmp_path / "entropy.parquet"), [("a", 0), ("a", 1), ("b", 0)], asked)
    other = Unit(location(tmp_path / "other.parquet"), [("c", 0)], asked[:1])
    (first,) = measure_units(model, [unit], "test")
    again, new = measure_units(model, [unit, other], "test")
    assert calls == [3, 1] and list(again) == list(first) == unit.keys and list(new) == other.keys
    for key, sequence in zip(unit.keys, asked, strict=True):
        assert again[key].entropy.tolist() == first[key].entropy.tolist() == list(range(len(sequence.response_ids)))
    measure_units(another, [unit], "test")
    measure_units(another, [Unit(unit.file, unit.keys[:2], asked[:2])], "test")
    assert calls == [3, 1, 3, 2]
    assert measure_units(model, [Unit(location(tmp_path / "none.parquet"), [], [])], "test") == [{}]


def test_the_chosen_samples_meet_their_prompts(tmp_path: Path) -> None:
    rows = [
        {"id": row_id, "greedy": greedy, "number": number, "response_token_ids": ids, "length": len(ids)}
        for row_id, base in (("a", 10), ("b", 20))
        for greedy, number, ids in ((True, 0, [9, 9]), (False, 0, [base, base]), (False, 1, [base + 1]))
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema()), tmp_path / "samples.parquet")
    prompts = [{"id": "a", "prompt_token_ids": [1]}, {"id": "b", "prompt_token_ids": [2, 2]}]
    pq.write_table(pa.Table.from_pylist(prompts), tmp_path / "prompts.parquet")
    places = [location(tmp_path / name) for name in ("samples.parquet", "prompts.parquet", "entropy.parquet")]
    unit = sample_unit(*places, positions=100, seed=0)
    expected = {
        ("a", 0): PromptResponse([1], [10, 10]),
        ("a", 1): PromptResponse([1], [11]),
        ("b", 0): PromptResponse([2, 2], [20, 20]),
        ("b", 1): PromptResponse([2, 2], [21]),
    }
    assert dict(zip(unit.keys, unit.sequences, strict=True)) == expected


def test_annotated_responses(tmp_path: Path) -> None:
    rows = make_rows(12)
    path = write_rows(tmp_path / "annotated", rows, {"tokenizer_fingerprint": "of a tokenizer"})
    found = load_annotated(str(path), 10**6, seed=0)
    known = {tuple(row[RESPONSE_IDS]): row[MASK] for row in rows}
    assert len(found.keys) == 12 and found.fingerprint == "of a tokenizer"
    assert all(known[tuple(s.response_ids)] == w for s, w in zip(found.sequences, found.weights, strict=True))
    some = load_annotated(str(path), 30, seed=0)
    assert 30 <= sum(map(len, some.weights)) < 60
    with pytest.raises(ValueError, match=r"--eval.annotated: .*elsewhere' is no annotated data set"):
        load_annotated(str(tmp_path / "elsewhere"), 10, seed=0)

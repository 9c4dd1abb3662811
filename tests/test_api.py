"""The names of the package: light to import, the defaults of the commands, the examples of their docstrings."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import masks_data
import pytest

import openrlhf_cft
from openrlhf_cft.cli import annotate as command
from openrlhf_cft.cli import masks as masks_command

LIGHT = set(openrlhf_cft.__all__) - {"CriticalTokenActor", "CriticalTokenDataset", "CriticalTokenTrainer"}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masks_data.annotate(tmp_path_factory.mktemp("data") / "annotated", top_k=3, exhaustive=True)


def test_every_name_is_there_and_most_pull_in_nothing_heavy() -> None:
    assert set(dir(openrlhf_cft)) >= set(openrlhf_cft.__all__) == set(openrlhf_cft._MODULES)
    code = f"import openrlhf_cft, sys\nfor name in {sorted(LIGHT)}:\n    getattr(openrlhf_cft, name)\n"
    code += "assert not {'torch', 'vllm', 'ray', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert openrlhf_cft.CriticalTokenDataset.__name__ == "CriticalTokenDataset"
    with pytest.raises(AttributeError, match="has no attribute 'anotate'"):
        _ = openrlhf_cft.anotate


def test_annotate_has_the_flags_of_the_command_and_their_defaults() -> None:
    flags = {action.dest.split(".")[-1]: action.default for action in command.parser()._actions}
    renamed = {"model": "model_name_or_path", "ray_address": "address"}
    given = {
        renamed.get(name, name): parameter.default
        for name, parameter in inspect.signature(openrlhf_cft.annotate).parameters.items()
    }
    only_there = {
        "help",
        "log_level",
        "dry_run",
        "gpu_hour_cost",
        "verifier_workers",
        "verifier_time_limit",
        "verifier_memory",
    }
    assert set(flags) == set(given) | only_there
    required = {"model_name_or_path", "dataset", "output_dir"}
    assert {name: flags[name] for name in set(given) - required} == {
        name: default for name, default in given.items() if name not in required
    }


def test_derive_has_the_flags_of_the_verb_and_their_defaults() -> None:
    parser = masks_command.parser()
    verb = next(action for action in parser._actions if action.dest == "verb").choices["derive"]
    flags = {action.dest.replace(".model_name_or_path", "_model"): action.default for action in verb._actions}
    flags["model"] = flags.pop("model_model")
    for name, parameter in inspect.signature(openrlhf_cft.derive).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert flags[name] == parameter.default, name


def test_judge() -> None:
    assert openrlhf_cft.judge("so it is $5.00", "5").verdict is openrlhf_cft.Verdict.CORRECT
    assert openrlhf_cft.judge("The answer is (B).", "B", verifier="choice").verdict is openrlhf_cft.Verdict.CORRECT
    assert openrlhf_cft.judge("so it is $6.00", "5").verdict is openrlhf_cft.Verdict.WRONG
    with pytest.raises(openrlhf_cft.InputError, match="unknown verifier 'oracle'"):
        openrlhf_cft.judge("5", "5", verifier="oracle")


FORK = """
import os, sys, openrlhf_cft
from openrlhf_cft import api
assert openrlhf_cft.judge("5", "5").verdict == "correct"
workers = [seat._worker for seat in api._pool("math")._seats if seat._worker]
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
states = [open(f"/proc/{worker.pid}/stat").read().rpartition(")")[2].split()[0] for worker in workers]
assert states and not set(states) & set("ZX"), states
"""


def test_a_forked_child_that_exits_leaves_the_workers_of_its_parent() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=300)


def test_pass_at_k() -> None:
    assert openrlhf_cft.pass_at_k(samples=8, correct=2, k=4) == pytest.approx(0.786, abs=5e-4)


def test_load_annotated_and_derive(annotated: Path, tmp_path: Path) -> None:
    shares = openrlhf_cft.derive(annotated, tmp_path / "with-masks", {"strict_2": "strict-2", "same_count": "random"})
    data = openrlhf_cft.load_annotated(tmp_path / "with-masks")
    assert data.metadata["criterion"] == "strict-3"
    rows = list(data.rows(["id", "critical_mask", "strict_2", "same_count"]))
    assert data.count() == len(rows) == len(list(data.rows())) > 8
    assert all(sum(row["same_count"]) == sum(row["critical_mask"]) <= sum(row["strict_2"]) for row in rows)
    tokens = sum(len(row["strict_2"]) for row in rows)
    assert shares["strict_2"] == pytest.approx(sum(sum(row["strict_2"]) for row in rows) / tokens)
    with pytest.raises(openrlhf_cft.InputError, match="no Parquet file at"):
        openrlhf_cft.load_annotated(tmp_path / "nothing")


def test_annotate_checks_its_arguments_before_anything_starts(tmp_path: Path) -> None:
    for change, message in [
        ({"top_k": 1}, "--annotate.top_k: 1 must be between 2 and 56"),
        ({"num_engines": 0}, "--vllm.num_engines: 0 must be at least 1"),
        ({"input_template": "no braces"}, "has to have {} once, for the question"),
        ({"verifier": "oracle"}, "unknown verifier 'oracle'"),
        ({}, "cannot load"),
    ]:
        with pytest.raises(ValueError, match=message):
            openrlhf_cft.annotate(str(tmp_path / "no-model"), "questions.jsonl", tmp_path / "out", **change)

"""Light modules stay light, and nothing imports across: annotation must not reach DeepSpeed, training not vLLM."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "openrlhf_cft"
HEAVY = {"torch", "vllm", "ray", "deepspeed", "transformers", "datasets", "openrlhf", "sympy", "matplotlib", "jinja2"}
LIGHT = [
    "openrlhf_cft.api",
    "openrlhf_cft.data.model_files",
    "openrlhf_cft.data.records",
    "openrlhf_cft.engine.platform",
    "openrlhf_cft.verify",
    "openrlhf_cft.annotation.annotator",
    "openrlhf_cft.engine.vllm_engine",
    "openrlhf_cft.annotation.job",
    "openrlhf_cft.evaluation.benchmarks",
    "openrlhf_cft.evaluation.entropy",
    "openrlhf_cft.engine.scoring_process",
    "openrlhf_cft.evaluation.intervals",
    "openrlhf_cft.evaluation.job",
    "openrlhf_cft.evaluation.majority",
    "openrlhf_cft.evaluation.metrics",
    "openrlhf_cft.evaluation.page",
    "openrlhf_cft.evaluation.plots",
    "openrlhf_cft.evaluation.entropy_cache",
    "openrlhf_cft.evaluation.report",
    "openrlhf_cft.evaluation.samples",
    "openrlhf_cft.evaluation.sources",
    "openrlhf_cft.evaluation.summary",
    "openrlhf_cft.evaluation.text_report",
    "openrlhf_cft.evaluation.row_worker",
    "openrlhf_cft.masks.compare",
    "openrlhf_cft.masks.derive",
    "openrlhf_cft.masks.export",
    "openrlhf_cft.masks.merge",
    "openrlhf_cft.masks.sample",
    "openrlhf_cft.engine.token_scores",
    "openrlhf_cft.masks.stats",
    "openrlhf_cft.masks.transfer",
    "openrlhf_cft.cli.annotate",
    "openrlhf_cft.cli.doctor",
    "openrlhf_cft.cli.evaluate",
    "openrlhf_cft.cli.masks",
    "openrlhf_cft.cli.train_sft",
    "openrlhf_cft.cli.view",
    "openrlhf_cft.display",
    "openrlhf_cft.view.page",
    "openrlhf_cft.view.terminal",
]


def test_light_modules_import_nothing_heavy() -> None:
    # One interpreter for each would be the same check in ten times the time: what one imports stays imported.
    code = f"import sys, importlib\nfor name in {LIGHT}:\n    importlib.import_module(name)\n"
    code += f"    found = {HEAVY} & set(sys.modules)\n    assert not found, (name, found)"
    subprocess.run([sys.executable, "-c", code], check=True)


def imports(path: Path) -> set[str]:
    """Absolute names of all that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# What each room may import of the others, from the ground up. One that is not here has no floor.
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "display": set(),
    "log": set(),
    "progress": {"log"},
    "curves": {"errors"},
    "data": {"errors"},
    "verify": {"data", "errors"},
    "engine": {"data", "errors", "log", "progress"},
    "jobs": {"data", "display", "engine", "errors", "progress", "verify"},
    "annotation": {"data", "engine", "errors", "jobs", "verify"},
    "evaluation": {"data", "display", "engine", "errors", "jobs", "verify"},
    "masks": {"data", "engine", "errors", "progress", "verify"},
    "train": {"data", "display", "engine", "errors"},
    "view": {"data", "display", "errors", "masks", "progress"},
    "doctor": {"data", "engine", "errors", "jobs", "train"},
    "reward": {"data", "errors", "verify"},
}
FLOORS["api"] = {"annotation", "data", "engine", "jobs", "log", "masks", "verify"}
FLOORS["cli"] = set(FLOORS)
# Annotation must not reach DeepSpeed, training not vLLM.
FORBIDDEN = {
    **dict.fromkeys(("data", "verify", "view", "masks"), ("vllm", "ray", "deepspeed", "openrlhf.")),
    **dict.fromkeys(("engine", "jobs", "annotation", "evaluation"), ("deepspeed", "openrlhf.")),
    "train": ("vllm", "ray"),
}


def room(path: Path) -> str:
    """The package that a file is in, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_the_floors_below(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    assert here in FLOORS, f"{here} is on no floor: add it to FLOORS, with what it may import"
    names = imports(path)
    used = {name.split(".")[1] for name in names if name.startswith("openrlhf_cft.")} - {here, "__version__"}
    assert used <= FLOORS[here], f"{path.name} imports {used - FLOORS[here]}"
    assert not [name for name in names if (name + ".").startswith(FORBIDDEN.get(here, ()))]


def test_the_floors_have_no_circle() -> None:
    graphlib.TopologicalSorter(FLOORS).prepare()


@pytest.mark.parametrize(
    ("module", "only"),
    [
        ("vllm", {f"engine/vllm_{name}.py" for name in ("arguments", "engine", "reload")}),
        ("ray", {f"jobs/{name}.py" for name in ("cluster", "engine_actor", "gpus", "pipeline", "progress")}),
    ],
)
def test_an_engine_is_imported_in_its_place(module: str, only: set[str]) -> None:
    importers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name == module or name.startswith(module + ".") for name in imports(path))
    }
    assert importers == only

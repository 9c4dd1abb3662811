"""What the README promises: its tree is the project's, and its commands parse."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import family_models
import pytest

from openrlhf_cft.cli import annotate, evaluate, masks, view
from openrlhf_cft.cli.train_sft import STOCK_SCRIPT, split_flags
from openrlhf_cft.cli.transfer_flags import transfer_settings
from openrlhf_cft.data.records import ANNOTATION_COLUMNS
from openrlhf_cft.train.arguments import Options

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def tree() -> set[str]:
    """Every path that the annotated tree names."""
    lines = README.split("## What is where")[1].split("\n## ")[0].splitlines()
    found: set[str] = set()
    stack = [(-1, "")]
    for line in filter(lambda line: line.startswith("    "), lines):
        indent, names = len(line) - len(line.lstrip()), re.split(r"\s{2,}", line.strip())[0]
        while stack[-1][0] >= indent:
            stack.pop()
        folder = stack[-1][1]
        for name in names.split(", "):
            found.add(folder + name)
            if name.endswith("/"):
                stack.append((indent, folder + name))
    return found


def test_the_tree_is_the_projects() -> None:
    named = tree()
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    assert not missing, f"the README names {missing}"
    for folder in (
        "",
        *(path.name for path in (REPOSITORY / "openrlhf_cft").iterdir() if path.is_dir() and path.name != "cli"),
    ):
        for path in (REPOSITORY / "openrlhf_cft" / folder).glob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            if path.name not in ("__init__.py", "judgement.py"):
                assert name in named, f"the README's tree lacks {name}"


def commands(start: str) -> list[list[str]]:
    """The commands of the README's shell blocks that begin with `start`, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line) for line in lines]
    return [words[len(start.split()) :] for words in found if words[: len(start.split())] == start.split()]


def test_its_commands_parse() -> None:
    (words,) = commands("python -m openrlhf_cft.cli.annotate")
    assert annotate.job_of(words).factory.settings.top_k == 3
    (words,) = commands("ray job submit")
    here = [
        word.replace("s3://", "file:///") for word in words[words.index("--") + 4 :]
    ]  # parsing asks S3 for a region
    assert annotate.job_of(here).pool.num_engines == 64
    (words,) = commands("python -m openrlhf_cft.cli.evaluate")
    assert list(evaluate.job_of(words).engines) == ["base", "cft"]
    (words,) = commands("python -m openrlhf_cft.cli.view")
    assert view.parser().parse_args(words).data == ["annotated"]
    verbs = [vars(masks.parser().parse_args(words)) for words in commands("python -m openrlhf_cft.cli.masks")]
    assert {flags["verb"] for flags in verbs} == set(masks.VERBS)
    for flags in verbs:
        if flags["verb"] == "transfer":
            transfer_settings(flags)
    (words,) = commands("deepspeed --module openrlhf_cft.cli.train_sft")
    options, others = split_flags(words)
    assert options == Options()
    unknown = {word for word in others if word.startswith("--")} - stock_flags()
    assert not unknown, f"the stock script has no {unknown}"


def test_its_variables_are_those_of_the_script() -> None:
    block = re.search(r"```bash\n(.*) bash examples/train_grpo.sh\n```", README)
    assert block is not None
    script = (REPOSITORY / "examples" / "train_grpo.sh").read_text()
    for name in [*re.findall(r"(\w+)=", block[1]), "SUBMIT", "VERIFIER"]:
        assert f"${{{name}:" in script, name


def stock_flags() -> set[str]:
    """The flags of OpenRLHF's script, read from its source."""
    package = importlib.util.find_spec("openrlhf")
    assert package is not None and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]).joinpath(*STOCK_SCRIPT.split(".")[1:]).with_suffix(".py")
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return {call.args[0].value for call in calls if getattr(call.func, "attr", "") == "add_argument"}  # type: ignore


@pytest.mark.parametrize("column", ANNOTATION_COLUMNS)
def test_it_documents_each_column(column: str) -> None:
    assert f"`{column}`" in README


def test_its_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"make ([a-z][a-z-]+)\b", README):
        assert f"\n{target}:" in makefile, target


def test_its_table_of_families_is_the_matrix_of_tests() -> None:
    assert f"\n\n{family_models.table()}\n\n" in README

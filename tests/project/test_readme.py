"""README and docs/: their commands parse, their tables and the tree are current."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import family_models
import pytest
import yaml
from test_imports import FLOORS

import openrlhf_cft
from openrlhf_cft.cli import annotate, doctor, evaluate, masks, view
from openrlhf_cft.cli.train_sft import STOCK_SCRIPT, split_flags
from openrlhf_cft.cli.transfer_flags import transfer_settings
from openrlhf_cft.data.records import ANNOTATION_COLUMNS
from openrlhf_cft.train.arguments import Options

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
FILES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.glob("*.md"))]
TEXTS = {str(file.relative_to(REPOSITORY)): file.read_text() for file in FILES}
ALL = "\n\n".join(TEXTS.values())
MODULE = "python -m openrlhf_cft.cli."


def tree() -> set[str]:
    """Every path that the annotated tree names."""
    lines = TEXTS["docs/architecture.md"].split("## What is where")[1].split("\n## ")[0].splitlines()
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
    assert not missing, f"docs/architecture.md names {missing}"
    for folder in (
        "",
        *(path.name for path in (REPOSITORY / "openrlhf_cft").iterdir() if path.is_dir() and path.name != "cli"),
    ):
        for path in (REPOSITORY / "openrlhf_cft" / folder).glob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            if path.name not in ("__init__.py", "judgement.py"):
                assert name in named, f"the tree in docs/architecture.md lacks {name}"


def test_its_law_of_imports_is_the_tests() -> None:
    text = TEXTS["docs/architecture.md"].split("## Import rules")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", others)) for name, others in rows} == FLOORS


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell_commands() -> list[list[str]]:
    """All commands of all shell blocks, as words."""
    lines = [line for block in blocks(ALL, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def commands(start: str) -> list[list[str]]:
    """The commands of the shell blocks that begin with `start`, without these words."""
    found = [words for words in shell_commands() if words[: len(start.split())] == start.split()]
    return [words[len(start.split()) :] for words in found]


def test_its_commands_parse() -> None:
    jobs = [annotate.job_of(words) for words in commands(MODULE + "annotate")]
    assert {job.factory.settings.top_k for job in jobs} == {3} and {job.pool.num_engines for job in jobs} == {8}
    assert any("--annotate.top_k" in words for words in commands(MODULE + "annotate"))
    (words,) = commands("ray job submit")
    here = [
        word.replace("s3://", "file:///") for word in words[words.index("--") + 4 :]
    ]  # parsing asks S3 for a region
    assert annotate.job_of(here).pool.num_engines == 64
    compared = [list(evaluate.job_of(words).engines) for words in commands(MODULE + "evaluate")]
    assert ["base", "cft"] in compared and ["base", "sft", "cft"] in compared
    looks = [view.parser().parse_args(words).data for words in commands(MODULE + "view")]
    assert ["annotated"] in looks and ["strict2", "strict3"] in looks
    verbs = [vars(masks.parser().parse_args(words)) for words in commands(MODULE + "masks")]
    assert {flags["verb"] for flags in verbs} == set(masks.VERBS)
    for flags in verbs:
        if flags["verb"] == "transfer":
            transfer_settings(flags)
    doctors = [*commands(MODULE + "doctor"), *commands(".venv/bin/" + MODULE + "doctor")]
    assert {doctor.parser().parse_args(words).gpu for words in doctors} == {None, "H100"}
    trained = commands("deepspeed --module openrlhf_cft.cli.train_sft")
    assert any("--critical_mask" in words for words in trained)
    for words in trained:
        options, others = split_flags(words)
        assert options == (Options() if "--critical_mask" in words else None)
        unknown = {word for word in others if word.startswith("--")} - stock_flags()
        assert not unknown, f"the stock script has no {unknown}"


def test_each_page_begins_with_a_command_and_ends_with_what_can_go_wrong() -> None:
    for name, text in TEXTS.items():
        if name.startswith("docs/") and name != "docs/README.md":
            assert re.match(r"# .+\n\n```(bash|python)\n", text), name
            assert re.findall(r"^## (.*)", text, re.MULTILINE)[-1] == "What can go wrong", name


def test_no_command_is_left_unparsed() -> None:
    """Every other line of a shell block starts a script or a target that exists, with variables that it reads."""
    parsed = ("python -m openrlhf_cft.cli.", "deepspeed --module openrlhf_cft.cli.train_sft", "ray job submit ")
    for words in shell_commands():
        line = " ".join(words)
        if line.removeprefix(".venv/bin/").startswith(parsed):
            continue
        variables = [word.split("=")[0] for word in words if re.match(r"[A-Z_]+=", word)]
        program, *others = words[len(variables) :]
        match program, others:
            case "make", [target]:
                assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text(), line
                text = "".join(
                    (REPOSITORY / file).read_text()
                    for file in ("Makefile", "examples/quickstart.sh", "examples/evidence/study.py")
                )
            case "bash", [script, *_]:
                text = (REPOSITORY / script).read_text()
                unknown = {word for word in others if word.startswith("--")} - stock_flags("train_ppo_ray")
                assert not unknown, f"the stock script has no {unknown}"
            case "python", ["-m", "pytest", *files]:
                assert all((REPOSITORY / file).exists() for file in files), line
                text = ""
            case "python", [script, *flags] if script.startswith(("docs/", "examples/")):
                text = (REPOSITORY / script).read_text()
                parsers = "".join(file.read_text() for file in (REPOSITORY / script).parent.rglob("*.py"))
                assert all(f'"{flag}"' in parsers for flag in flags if flag.startswith("--")), line
            case "python", ["-c", code]:
                text = ""
                check_python(code, line)
            case _:
                raise AssertionError(f"no test knows the command {line!r}")
        for name in variables:
            assert re.search(rf"\$\$?\{{{name}\b", text), f"{name} in {line}"


def test_its_variables_are_those_of_the_script() -> None:
    found = re.findall(r"```bash\n(.*) bash examples/train_grpo.sh", ALL)
    assert found
    script = (REPOSITORY / "examples" / "train_grpo.sh").read_text()
    for name in [*(name for line in found for name in re.findall(r"(\w+)=", line)), "SUBMIT", "VERIFIER"]:
        assert f"${{{name}:" in script, name


def stock_flags(script: str = STOCK_SCRIPT.rpartition(".")[2]) -> set[str]:
    """The flags of a script of OpenRLHF, read from its source."""
    package = importlib.util.find_spec("openrlhf")
    assert package is not None and package.submodule_search_locations
    name = f"{STOCK_SCRIPT.rpartition('.')[0]}.{script}"
    file = Path(package.submodule_search_locations[0]).joinpath(*name.split(".")[1:]).with_suffix(".py")
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    names = [call.args[0] for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    return {str(name.value) for name in names if isinstance(name, ast.Constant)}


def check_python(code: str, where: str) -> None:
    """Every name of the package that the code uses exists, and takes the arguments that it is called with."""
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("openrlhf_cft.")):
            continue
        function = getattr(openrlhf_cft, ast.unparse(node.func).removeprefix("openrlhf_cft."), None)
        assert callable(function), f"{where}: {ast.unparse(node.func)}"
        keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        inspect.signature(function).bind(*node.args, **keywords)


def test_its_python_is_the_packages() -> None:
    found = [(name, block) for name, text in TEXTS.items() for block in blocks(text, "python")]
    assert found
    for name, block in found:
        check_python(block, name)
    line = next(line for _, block in found for line in block.splitlines() if "pass_at_k" in line)
    expression, value = line.split("  # ")
    assert f"{eval(expression, {'openrlhf_cft': openrlhf_cft}):.3f}" == value


@pytest.mark.parametrize("column", ANNOTATION_COLUMNS)
def test_it_documents_each_column(column: str) -> None:
    assert f"`{column}`" in TEXTS["docs/data-format.md"]


def test_its_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"make ([a-z][a-z-]+)\b", ALL):
        assert f"\n{target}:" in makefile, target


def test_its_table_of_families_is_the_matrix_of_tests() -> None:
    assert f"\n\n{family_models.table()}\n\n" in TEXTS["docs/annotate.md"]


def test_the_readmes_figures_are_the_studys() -> None:
    """A figure with intervals in the README stands so in the tables that are made from the results."""
    figures = re.findall(r"-?\d\.\d+\s±\s\d\.\d+\s\[[^]]*\]", TEXTS["README.md"])
    assert len(figures) >= 2
    for figure in figures:
        assert " ".join(figure.split()) in TEXTS["docs/evidence.md"], figure


def test_files_for_other_services_are_whole() -> None:
    """The citation names this version, and what a continuous integration runs are the README's two commands."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (openrlhf_cft.__version__, "Apache-2.0")
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    runs = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert {"make test", "make quickstart"} <= set(runs)
    (local,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]] == makefile_checks()


def makefile_checks() -> list[str]:
    """What `make check` runs."""
    recipe = (REPOSITORY / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    return [line.strip().removesuffix(" .") for line in recipe.splitlines()[1:]]


def test_the_reference_is_that_of_the_parsers() -> None:
    """`python docs/reference.py` writes it; in a process of its own, since other tests register a verifier."""
    code = "import reference; print(reference.page(), end='')"
    command = [sys.executable, "-c", code]
    page = subprocess.run(command, cwd=DOCS, capture_output=True, text=True, check=True, timeout=300).stdout
    assert TEXTS["docs/reference.md"] == page, "run python docs/reference.py"


def test_the_site_has_every_page_and_loads_nothing(tmp_path: Path) -> None:
    """`make docs`, which is strict: a link that leads nowhere ends it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    names = {"index" if file.stem == "README" else file.stem for file in DOCS.glob("*.md")}
    pages = {page.stem: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert set(pages) == names | {"404"}
    for text in pages.values():
        assert not re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", text)


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 200


def test_both_pictures_say_the_same() -> None:
    light, dark = ((DOCS / f"pipeline-{theme}.svg").read_text() for theme in ("light", "dark"))
    assert light != dark and re.sub(r"#[0-9a-f]{6}", "", light) == re.sub(r"#[0-9a-f]{6}", "", dark)

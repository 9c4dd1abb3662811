"""For tools that want this file; the package is described in pyproject.toml."""

from setuptools import setup

setup()

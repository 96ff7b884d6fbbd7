"""Joins the stub generator to setuptools; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from generate import BuildWithStubs

setup(cmdclass={"build_py": BuildWithStubs})

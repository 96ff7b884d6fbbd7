"""Gives every test under tests/ the fixtures of integration/suite.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "integration"))

from suite import *  # noqa: E402, F403

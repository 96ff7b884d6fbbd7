"""Gives every test under tests/ the fixtures of support/suite.py, and the modules of loadtest and of support."""

import os
import pathlib
import signal
import sys

# A shell starts what it runs in the background with SIGINT ignored, and the commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Services are started while calls are under way: gRPC's handlers of fork would abort the children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
for folder in ("loadtest", "tests/support"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / folder))

from suite import *  # noqa: E402, F403

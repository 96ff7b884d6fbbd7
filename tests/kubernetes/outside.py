"""What a test asks of a suite in containers, as anybody outside of them could."""

import time
from collections.abc import Callable

import pytest
import sextant
from container_tools import ROOT

MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"


def wait_until(what: str, true: Callable[[], bool], timeout_s: float) -> float:
    """Seconds until `true()`."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > timeout_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - start


def generate(gateway: str, prompt: str = "The capital of France is") -> sextant.Generation:
    with sextant.Client(gateway) as client:
        out = client.generate(prompt, max_new_tokens=8, lens=sextant.Lens(top_k=3), timeout=300)
        assert out.lens is not None  # waits for the last reading
        return out


def check_readings(out: sextant.Generation) -> None:
    """Every position has a reading at every layer."""
    readings = out.lens
    positions = len(out.prompt_token_ids) + len(out.token_ids) - 1
    assert readings.top_ids.shape[2] == positions
    assert (readings.top_ids >= 0).all() and (readings.entropy > 0).all()


def check_capital(out: sextant.Generation) -> None:
    """The quickstart's model answers the usual prompt rightly, and its last layer foresees the first token."""
    assert "Paris" in out.text
    check_readings(out)
    assert out.lens.top_ids[0, -1, len(out.prompt_token_ids) - 1, 0] == out.token_ids[0]

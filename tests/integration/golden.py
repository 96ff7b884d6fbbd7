"""Reads a golden file and compares the whole suite's output with it."""

import pathlib

import numpy
import sextant
from safetensors.numpy import load_file

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
SITES = ["resid_pre", "attn_in", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"]
PROMPT_COUNT = 12
# fp32 against fp32 with other summation orders: 1e-4 relative to each tensor's scale finds bugs and not rounding.
TOLERANCE = 1e-4


def load(name: str) -> dict[str, numpy.ndarray]:
    return load_file(GOLDEN / f"{name}.golden.safetensors")


def worst(actual: numpy.ndarray, expected: numpy.ndarray) -> float:
    """Largest difference, relative to the largest value expected (a row's small entries share its rounding)."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert numpy.isfinite(actual).all()
    return float(numpy.abs(actual - expected).max() / max(1e-3, numpy.abs(expected).max()))


def generate(client: sextant.Client, golden: dict, **settings):
    """The golden's own greedy generation."""
    ids = golden["token_ids"]
    return client.generate(ids[:PROMPT_COUNT].tolist(), max_new_tokens=len(ids) - PROMPT_COUNT, ignore_eos=True, **settings)


def check_tokens(out, golden: dict) -> None:
    assert out.token_ids.tolist() == golden["token_ids"][PROMPT_COUNT:].tolist()
    assert worst(out.logprobs, golden["greedy_logprobs"]) < TOLERANCE


def check_rows(activations, golden: dict) -> None:
    """Every site's rows at the golden's positions, for every layer."""
    layers = golden["rows.resid_post"].shape[0]
    positions = golden["row_positions"]
    for site in SITES:
        actual = numpy.stack([activations[site, layer][positions] for layer in range(layers)])
        assert worst(actual, golden[f"rows.{site}"]) < TOLERANCE, site


def check_readings(lens, golden: dict, site: str, how: str) -> None:
    """Entropy, KL, target and rank, candidates and prediction depth of one site (index 0 of `lens`)."""
    name = f"lens.{site}.{how}"
    assert worst(lens.entropy[0], golden[f"{name}.entropy"]) < TOLERANCE
    assert worst(lens.kl_final[0], golden[f"{name}.kl"]) < TOLERANCE
    target = lens.target_logprob[0]
    assert worst(target.reshape(golden[f"{name}.target_logprob"].shape), golden[f"{name}.target_logprob"]) < TOLERANCE
    assert worst(lens.top_logprobs[0], golden[f"{name}.top_logprobs"]) < TOLERANCE
    rank = lens.target_rank[0].reshape(golden[f"{name}.target_rank"].shape)
    # A rank or an order may differ only where two logits are closer than fp32 rounding: rare.
    assert (numpy.abs(rank - golden[f"{name}.target_rank"]) <= 1).all()
    assert (rank == golden[f"{name}.target_rank"]).mean() > 0.99
    assert (lens.top_ids[0] == golden[f"{name}.top_ids"]).mean() > 0.99
    assert (lens.prediction_depth[0] == golden[f"{name}.depth"]).mean() > 0.97

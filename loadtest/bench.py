"""First figures of a suite on this machine, as ratios within one run: decode against the machine's read bandwidth,
capture on against off, one lens decoder alone. Every figure has its denominator and the hash of its tokens beside it."""

import argparse
import hashlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "deploy/local"))

import sextant  # noqa: E402
from cluster import DEFAULT_MODEL, Cluster  # noqa: E402

PROMPT = "Once upon a time, in a village by the sea,"
THREE_SITES = sextant.Capture(sites=["resid_post", "attn_out", "mlp_out"])


def spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def decode(client: sextant.Client, tokens: int, capture: sextant.Capture | None) -> tuple[float, str]:
    """Tokens a second of the decode phase, and a hash of the tokens and their log-probabilities."""
    out = client.generate(PROMPT, max_new_tokens=tokens, ignore_eos=True, capture=capture)
    out.wait()
    if capture is not None:
        client.captures.delete(out.capture)
    # Eight hex digits of what was said, log-probabilities to the last bit: a fast wrong answer shows.
    digest = hashlib.sha256(out.token_ids.tobytes() + out.logprobs.tobytes()).hexdigest()[:8]
    return out.stats.tokens_per_second, digest


def bench_decode(client: sextant.Client, rounds: int, tokens: int, bandwidth: float, rows: list) -> None:
    plain, captured, hashes = [], [], set()
    decode(client, tokens, None)
    for _ in range(rounds):  # interleaved, so that a drift of the machine meets both
        for capture, rates in ((None, plain), (THREE_SITES, captured)):
            rate, digest = decode(client, tokens, capture)
            rates.append(rate)
            hashes.add(digest)
    model = client.model()
    # Every step reads each weight once: bf16 matrices of the blocks and of the head.
    block = model.hidden_size * (2 * model.head_count + 2 * model.kv_head_count) * model.head_dim + 3 * model.hidden_size * model.feed_forward_size
    weight_bytes = 2 * (model.layer_count * block + model.vocab_size * model.hidden_size)
    said = " ".join(sorted(hashes))
    rows.append(("decode, tok/s", spread(plain), f"tokens {said}"))
    rows.append(("weights read, GB/s", spread([weight_bytes * r / 1e9 for r in plain]),
                 f"machine reads {bandwidth:.1f} GB/s: ratio {weight_bytes * statistics.median(plain) / 1e9 / bandwidth:.2f}"))
    ratios = [c / p for c, p in zip(captured, plain)]
    rows.append(("capture on, tok/s", spread(captured), f"3 sites x {model.layer_count} layers, on/off {spread(ratios, 2)}"))
    if len(hashes) != 1:
        rows.append(("WRONG", "tokens differ", "capture or repetition changed the output"))


def bench_lens(client: sextant.Client, cluster: Cluster, rows: list) -> None:
    """One decoder alone: a backlog of prompt rows is recorded while there is none, then one starts."""
    layers = client.model().layer_count
    ids = client.tokenize(PROMPT).ids
    prompt = (ids.tolist() * 100)[:360]
    out = client.generate(prompt, max_new_tokens=0, lens=sextant.Lens(top_k=5), lens_wait=300)
    worker = threading.Thread(target=out.wait)
    worker.start()
    capture = next(p for p in cluster.processes if p.binary == "capture")
    deadline = time.monotonic() + 120
    while (capture.metric("sextant_capture_waiting_rows") or 0) < len(prompt) * layers and time.monotonic() < deadline:
        time.sleep(0.05)
    backlog = capture.metric("sextant_capture_waiting_rows") or 0
    cluster.scale(1)
    samples = []
    while worker.is_alive() and time.monotonic() < deadline + 300:
        left = (capture.metric("sextant_capture_waiting_rows") or 0) + (capture.metric("sextant_capture_leased_rows") or 0)
        samples.append((time.monotonic(), left))
        time.sleep(0.02)
    worker.join()
    samples.append((time.monotonic(), 0.0))
    # From the first sample in which something is decoded to the end: starting up does not count.
    begin = next((s for s in samples if s[1] < backlog), samples[0])
    rate = (begin[1] - samples[-1][1]) / (samples[-1][0] - begin[0])
    rows.append(("lens rows/s, one decoder", f"{rate:.0f}", f"{backlog:.0f} rows waiting at its start"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=DEFAULT_MODEL)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--port", type=int, default=17700)
    parser.add_argument("--json", type=pathlib.Path, help="also write the table here")
    arguments = parser.parse_args()
    bandwidth = float(subprocess.run([ROOT / "build/bench/read_bandwidth", str(arguments.ranks)], check=True,
                                     capture_output=True, text=True).stdout)
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="sextant-bench-") as folder:
        cluster = Cluster(pathlib.Path(folder), port=arguments.port)
        cluster.up(arguments.model.resolve(), arguments.ranks, 0, "cpu", "bfloat16")
        try:
            with sextant.Client(cluster.address) as client:
                bench_decode(client, arguments.rounds, arguments.tokens, bandwidth, rows)
                bench_lens(client, cluster, rows)
        finally:
            cluster.down()
    width = max(len(name) for name, _, _ in rows)
    print(f"{arguments.model.name}, {arguments.ranks} ranks, {arguments.rounds} rounds of {arguments.tokens} tokens; median (least..most)")
    for name, figure, note in rows:
        print(f"  {name:<{width}}  {figure:<26} {note}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 1 if any(name == "WRONG" for name, _, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

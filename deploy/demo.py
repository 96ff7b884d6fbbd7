"""The quickstart's demonstration: look inside a model while it generates, steer it, leave pictures and a table."""

import argparse
import pathlib
import shutil
import signal
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "local"))
import numpy
import sextant
from cluster import Cluster, ClusterError
from rich.console import Console
from rich.table import Table

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROMPT = "Once upon a time, in a village by the sea,"
STEER_PROMPT = "When I think about my job, I feel"
STEER_LAYER = 16
ROUNDS = 5
CHEERFUL = [
    "I am so happy today, everything is wonderful and bright.",
    "What a beautiful morning, I feel grateful and full of joy.",
    "The food was delicious and the people were warm and kind.",
    "I love this place, it makes me smile every single time.",
    "Our team won the game and we celebrated with laughter.",
    "She opened the gift and her face lit up with delight.",
]
GLOOMY = [
    "I am so sad today, everything is terrible and dark.",
    "What an awful morning, I feel bitter and full of sorrow.",
    "The food was disgusting and the people were cold and rude.",
    "I hate this place, it makes me cry every single time.",
    "Our team lost the game and we left in silence.",
    "She opened the letter and her face fell with grief.",
]
console = Console(highlight=False)


def mean_row(client: sextant.Client, texts: list[str], layer: int) -> numpy.ndarray:
    """Mean row of resid_pre over all positions but the first of each text. float32 [hidden]."""
    rows = []
    for text in texts:
        out = client.generate(text, max_new_tokens=0, capture=sextant.Capture(sites=["resid_pre"], layers=[layer]))
        rows.append(out.activations["resid_pre", layer][1:])
        client.captures.delete(out.capture)
    return numpy.concatenate(rows).mean(axis=0)


def decode_rate(client: sextant.Client, capture: sextant.Capture | None) -> float:
    """Generated tokens per second of one decode."""
    out = client.generate(PROMPT, max_new_tokens=32, capture=capture).wait()
    if capture is not None:
        client.captures.delete(out.capture)
    return out.stats.tokens_per_second


def spread(values: list[float], form: str) -> str:
    """Median (least..most): single runs say little on a machine that does other things too."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def side_by_side(plain: str, steered: dict[float, str]) -> str:
    lines = [f"# {STEER_PROMPT} ...", "", "| steering | continuation |", "|---|---|"]
    for strength, text in sorted({**steered, 0.0: plain}.items()):
        label = "none" if strength == 0 else f"cheerful x {strength:+g}"
        lines.append(f"| {label} | {' '.join(text.split())} |")
    return "\n".join(lines) + "\n"


def demonstrate(client: sextant.Client, cluster: Cluster, folder: pathlib.Path) -> None:
    model = client.model()
    layer = min(STEER_LAYER, model.layer_count - 1)
    figures = Table(title=f"measured; of {ROUNDS} rounds: median (least..most)", title_justify="left")
    figures.add_column("what")
    figures.add_column("figure", justify="right")

    console.print(f"   {model.name}: {model.layer_count} layers, hidden {model.hidden_size}, {model.tensor_parallel_size} ranks")
    client.generate(PROMPT, max_new_tokens=4).wait()  # caches are warm from here on
    capture = sextant.Capture(sites=["resid_post", "attn_out", "mlp_out"])
    # In turn, so that what else the machine does in one round slows both.
    rates = [(decode_rate(client, None), decode_rate(client, capture)) for _ in range(ROUNDS)]
    figures.add_row("decode, tok/s", spread([plain for plain, _ in rates], ".1f"))
    figures.add_row("the same, 3 sites captured", spread([captured for _, captured in rates], ".1f"))
    figures.add_row("their ratio in a round", spread([captured / plain for plain, captured in rates], ".2f"))

    out = client.generate(PROMPT, max_new_tokens=32, lens=sextant.Lens(top_k=5, tracked=True), capture=capture)
    console.print(f"   [bold]{PROMPT}[/bold]{out.text}")
    readings = out.lens
    rows = int(numpy.isfinite(readings.entropy).sum())
    figures.add_row("rows read through the LM head", f"{rows} beside the generation")
    figures.add_row("bytes captured", f"{out.stats.captured_bytes / 1e6:.1f} MB for {out.stats.recorded_position_count} positions")
    readings.heatmap(folder / "heatmap.html")
    readings.heatmap(folder / "heatmap.png")
    readings.save(folder / "readings.json")
    out.activations.save(folder / "capture.safetensors")
    console.print("   heatmap, readings and capture are saved")

    vector = mean_row(client, CHEERFUL, layer) - mean_row(client, GLOOMY, layer)
    stored = client.vectors.put("cheerful", vector[None], site="resid_pre", layers=[layer])
    reference = f"{stored.name}@{stored.version}"
    plain = client.generate(STEER_PROMPT, max_new_tokens=20).text
    steered = {}
    for strength in (-1.5, 1.5):
        out = client.generate(STEER_PROMPT, max_new_tokens=20, steer=[sextant.Steer(reference, strength=strength)])
        steered[strength] = out.text
    comparison = side_by_side(plain, steered)
    (folder / "continuations.md").write_text(comparison)
    if plain in steered.values():
        raise ClusterError("the steered continuation does not differ from the plain one")
    table = Table(title=f"{STEER_PROMPT} ...", title_justify="left")
    table.add_column("steering")
    table.add_column("continuation")
    for line in comparison.splitlines()[4:]:
        table.add_row(*[cell.strip() for cell in line.strip("|").split("|")])
    console.print(table)
    console.print(figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--port", type=int, default=7700)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build/quickstart")
    arguments = parser.parse_args()
    # Both ends are the same orderly one, also where a shell has made this process ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = arguments.output
    Cluster(folder / "cluster").down()  # what an interrupted run may have left
    if folder.exists() and any(folder.iterdir()) and not (folder / "cluster").exists():
        parser.error(f"{folder} holds other files: name a new folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cluster = Cluster(folder / "cluster", port=arguments.port)
    try:
        cluster.up(arguments.model.resolve(), arguments.ranks, arguments.decoders, "cpu", "bfloat16",
                   say=lambda text: console.print(f"   {text}"))
        with sextant.Client(cluster.address) as client:
            demonstrate(client, cluster, folder)
    except (ClusterError, sextant.SextantError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        console.print(f"logs: {folder / 'cluster/logs'}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    finally:
        cluster.down()
    console.print(f"results: {folder}/ (open heatmap.html in a browser)", markup=False, soft_wrap=True)
    console.print("next:", markup=False)
    for command in ("deploy/local/up --ranks 3 --decoders 1",
                    '.venv/bin/sextant generate "The capital of France is" --max-new-tokens 16 --lens',
                    "deploy/local/down"):
        console.print(f"  {command}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

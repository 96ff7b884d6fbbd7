"""The suite with its ranks and lens decoder on emulated GPUs says what the suite on the CPU says."""

import pathlib

import numpy
import pytest
import sextant
from suite import MODELS, emulated_binaries, free_base_port  # First: it finds cluster.

from cluster import Cluster

EMULATED = ("shard_worker", "lens_decoder")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Tiny Llama-3.1, fp32, two ranks on two emulated GPUs, the lens decoder on a third."""
    binaries = emulated_binaries(tmp_path_factory.mktemp("bin"), EMULATED)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), binaries, free_base_port(33500))
    # Overrides what `up` passes: it counts real GPUs.
    extra = {"shard_worker": ["--device=cuda:0", "--kv_cache_mb=8"], "lens_decoder": ["--device=cuda:2"]}
    cluster.up(MODELS / "llama31_tiny", 2, 1, "cpu", "float32", extra=extra)
    yield cluster
    cluster.down()


def test_emulated_gpus_say_what_the_cpu_says(client, emulated) -> None:
    settings = dict(max_new_tokens=6, ignore_eos=True, capture=sextant.Capture(sites=["resid_post"]), lens=sextant.Lens())
    expected = client.generate("The quick brown fox", **settings).wait()
    with sextant.Client(emulated.address) as gpus:
        got = gpus.generate("The quick brown fox", **settings).wait()
        assert got.token_ids.tolist() == expected.token_ids.tolist()
        # fp32 sums of some hundred products, in another order.
        close = dict(rtol=1e-3, atol=1e-3)
        for layer in range(client.model().layer_count):
            numpy.testing.assert_allclose(got.activations["resid_post", layer], expected.activations["resid_post", layer], **close)
        numpy.testing.assert_allclose(got.lens.entropy, expected.lens.entropy, **close)
    for process in emulated.processes:
        if process.binary in EMULATED:
            assert 'backend="cuda:' in pathlib.Path(process.log).read_text(), process.name

"""What people type against what goes on the wire."""

from __future__ import annotations

import numpy as np
import pytest

import sextant
from sextant.selection import hook_name, parse_layers, parse_positions, parse_row
from sextant.v1 import types_pb2 as pb


@pytest.mark.parametrize(
    ("typed", "layers"),
    [("all", []), (None, []), (14, [14]), ([5, 3, 5], [3, 5]), ("10-12", [10, 11, 12]), ("0,4-5", [0, 4, 5]),
     (range(2, 4), [2, 3]), (np.int64(3), [3])],
)  # fmt: skip
def test_layers(typed, layers):
    assert parse_layers(typed) == layers


@pytest.mark.parametrize("typed", ["-1", "5-3", "x", [], -1, "1,,2"])
def test_layers_refused(typed):
    with pytest.raises(sextant.SextantError) as caught:
        parse_layers(typed)
    assert caught.value.reason == "BAD_LAYERS"


def test_positions():
    assert parse_positions("all") is None and parse_positions(None) is None
    assert parse_positions("prompt") == pb.Positions(prompt=pb.PositionSet(all=True))
    assert parse_positions(-1) == pb.Positions(prompt=pb.PositionSet(positions=[-1]))
    assert parse_positions(slice(-3, None)) == pb.Positions(
        prompt=pb.PositionSet(windows=[pb.Window(begin=-3)])
    )
    clause = sextant.Positions(
        prompt=[0, slice(2, 4)], generation="all", exclude_generation=sextant.PositionSet(tokens=[9])
    )
    assert parse_positions(clause) == pb.Positions(
        prompt=pb.PositionSet(positions=[0], windows=[pb.Window(begin=2, end=4)]),
        generation=pb.PositionSet(all=True),
        exclude_generation=pb.PositionSet(tokens=[9]),
    )
    assert parse_positions(sextant.Positions(prompt=0)).prompt.positions == [0]


@pytest.mark.parametrize("typed", ["promt", slice(0, 9, 2), sextant.Positions(prompt="some")])
def test_positions_refused(typed):
    with pytest.raises(sextant.SextantError) as caught:
        parse_positions(typed)
    assert caught.value.reason == "BAD_POSITIONS"


def test_row_names():
    for key in ("blocks.14.hook_resid_post", "resid_post.14", ("resid_post", 14), "blocks.14.resid_post"):
        assert parse_row(key) == ("resid_post", 14)
    assert (
        hook_name("resid_post", 14) == "blocks.14.hook_resid_post"
        and hook_name("mlp_in", 2) == "blocks.2.mlp_in"
    )
    assert parse_row(hook_name("mlp_in", 2)) == ("mlp_in", 2)
    with pytest.raises(sextant.SextantError, match="resid_mid"):
        parse_row("resid_past.3")


def test_steer_by_name():
    proto = sextant.Steer(
        "happy@2", strength=-0.5, layers="10-11", positions="generation", operator="add_scaled"
    ).to_proto()
    assert proto.vector == "happy@2" and proto.strength == -0.5 and list(proto.layers) == [10, 11]
    assert (
        proto.operator == pb.STEERING_OPERATOR_ADD_SCALED
        and proto.positions.generation.all
        and proto.site == 0
    )


def test_steer_inline():
    one = sextant.Steer(np.ones(4), layers=[2, 3], site="resid_pre").to_proto()
    assert (
        list(one.layers) == [2, 3]
        and list(one.inline_vector.layers) == [2]
        and len(one.inline_vector.data) == 16
    )
    two = sextant.Steer(np.ones((2, 4)), layers=[2, 3]).to_proto()
    assert list(two.inline_vector.layers) == [2, 3] and two.inline_vector.site == pb.SITE_RESID_POST
    for bad in (np.ones(4), np.full(4, np.nan)):
        with pytest.raises(sextant.SextantError):
            sextant.Steer(bad, layers=None if np.isfinite(bad).all() else [1]).to_proto()


@pytest.mark.parametrize(
    "make",
    [
        lambda: sextant.Lens(sites=["resid"]).to_proto(),
        lambda: sextant.Lens(mode="fast").to_proto(),
        lambda: sextant.Lens(targets="mine").to_proto(),
        lambda: sextant.Steer("x", operator="multiply").to_proto(),
        lambda: sextant.Capture(record="never").to_proto(),
    ],
)
def test_unknown_words_are_refused(make):
    with pytest.raises(sextant.SextantError) as caught:
        make()
    assert caught.value.code == "INVALID_ARGUMENT"


def test_numbers_out_of_range(client):
    with pytest.raises(sextant.SextantError) as caught:
        client.generate("x", max_new_tokens=1 << 40)
    assert caught.value.reason == "BAD_ARGUMENT"


def test_what_comes_later_says_what_to_do(client):
    for call in (
        lambda: client.vectors.build("happy", pairs=[("a", "b")]),
        lambda: client.vectors.evaluate("happy", items="items.jsonl"),
        lambda: client.compare("x", steer=[]),
        lambda: sextant.Steer("x", gate=sextant.Gate(" sorry", 4.0, "resid_post", 12)).to_proto(),
    ):
        with pytest.raises(sextant.SextantError) as caught:
            call()
        assert caught.value.code == "UNIMPLEMENTED" and len(caught.value.message) > 30

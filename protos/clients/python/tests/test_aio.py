"""The awaitable client."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

import sextant


def test_streams_and_results(address):
    async def scenario():
        async with sextant.aio.Client(address) as client:
            assert (await client.model()).name == "fake-7m"
            capture = sextant.Capture(sites=["resid_post"], layers=[2])
            out = client.generate("Once upon", max_new_tokens=5, lens=sextant.Lens(), capture=capture)
            with pytest.raises(sextant.SextantError, match="await"):
                out.text  # noqa: B018
            streamed = "".join([event.text async for event in out])
            assert (await out).text == streamed and out.lens.entropy.shape[2] == 6
            rows = await out.activations()
            assert np.isfinite(await rows.get("resid_post.2")).all()
            assert len(await client.captures.list()) == 1
            following = await client.captures.follow(out.capture)
            np.testing.assert_array_equal(following.lens.entropy, out.lens.entropy)
            await client.vectors.put("happy", np.ones(8), layers=[1])
            assert [v.reference for v in await client.vectors.list()] == ["happy@1"]

    asyncio.run(scenario())


def test_errors(address, gateway):
    gateway.fail = (grpc.StatusCode.UNAVAILABLE, "GROUP_LOST", "try again", 1)

    async def scenario():
        async with sextant.aio.Client(address) as client:
            with pytest.raises(sextant.SextantError) as caught:
                await client.generate("Once", max_new_tokens=3)
            assert (caught.value.reason, caught.value.retry_after) == ("GROUP_LOST", 1)

    asyncio.run(scenario())


def test_cancelling_the_task_cancels_on_the_server(address, gateway):
    gateway.hold = True

    async def scenario():
        async with sextant.aio.Client(address) as client:
            task = asyncio.create_task(client.generate("Once", max_new_tokens=3)._finish())
            while not gateway.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gateway.cancelled.wait, 5)

    asyncio.run(scenario())

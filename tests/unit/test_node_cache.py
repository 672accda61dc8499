# SPDX-License-Identifier: Apache-2.0
"""Inputs on disk: fetched once, bounded, and never taken from a job that has them."""

import os
from pathlib import Path

import pytest
import trio

from qubix_node.errors import StoreUnavailable, WrongContent
from qubix_node.jobs.cache import InputCache
from qubix_node.jobs.store import Artifact
from qubix_node.jobs.store_fake import FakeStore

pytestmark = pytest.mark.trio


def wanted(store: FakeStore, data: bytes) -> Artifact:
    return Artifact(digest=store.add(data), size_bytes=len(data), attempt_id="a", fence=1)


def kept(folder: Path) -> set[int]:
    return {path.stat().st_size for path in folder.iterdir()}


async def test_the_least_recently_used_is_forgotten_and_its_job_keeps_it(tmp_path: Path) -> None:
    store = FakeStore()
    cache = InputCache(tmp_path / "cache", store, 250)
    one, two, three = (wanted(store, bytes([n]) * (100 + n)) for n in range(3))
    await cache.provide(one, tmp_path / "1")
    await cache.provide(two, tmp_path / "2")
    os.utime(tmp_path / "1", (1, 1))
    os.utime(tmp_path / "2", (2, 2))
    await cache.provide(one, tmp_path / "1-again")
    await cache.provide(three, tmp_path / "3")
    assert kept(tmp_path / "cache") == {100, 102}
    assert (tmp_path / "2").read_bytes() == bytes([1]) * 101
    assert len(store.asked) == 3


async def test_an_input_over_the_limit_still_serves_its_job(tmp_path: Path) -> None:
    store = FakeStore()
    cache = InputCache(tmp_path / "cache", store, 0)
    await cache.provide(wanted(store, b"x" * 50), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"x" * 50
    assert kept(tmp_path / "cache") == set()


async def test_two_jobs_at_once_fetch_once(tmp_path: Path) -> None:
    store = FakeStore()
    cache = InputCache(tmp_path / "cache", store, 1000)
    both = wanted(store, b"y" * 70)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.provide, both, tmp_path / "1")
        nursery.start_soon(cache.provide, both, tmp_path / "2")
    assert len(store.asked) == 1
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == b"y" * 70


async def test_a_failed_fetch_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    store = FakeStore()
    cache = InputCache(tmp_path / "cache", store, 1000)
    store.faults = 1
    artifact = wanted(store, b"z" * 30)
    with pytest.raises(StoreUnavailable):
        await cache.provide(artifact, tmp_path / "x")
    store.content[artifact.digest] = b"other bytes"
    with pytest.raises(WrongContent):
        await cache.provide(artifact, tmp_path / "x")
    assert kept(tmp_path / "cache") == set()
    assert not (tmp_path / "x").exists()

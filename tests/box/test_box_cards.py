# SPDX-License-Identifier: Apache-2.0
"""Cards: one consumer at a time, only the assigned one's device nodes, nothing of the last job left (B2).

The card is a file that keeps what was written to it, as a driver's memory does; its device node is that file.
"""

import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from errno import EACCES, ENOENT, ENOTTY, EPERM, EROFS
from pathlib import Path

import pytest
import trio

from qubix_kernels import sass
from qubix_kernels.box import machine, rules
from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Gpu
from qubix_kernels.box.wipe import MIB, Wiped, overwrite
from qubix_kernels.tasks import RunTask, TaskFailed
from qubix_kernels.zygote import Zygote
from qubix_node.errors import WorkerLost
from qubix_node.jobs.cards import Card
from qubix_node.jobs.worker import Workers
from qubix_node.node import Node
from qubix_protocol.messages import Device
from qubix_protocol.states import Availability, DeviceKind
from tests.box.world import INSIDE, hostile
from tests.support.node_world import open_world

VRAM_BYTES = 1 * MIB


class FileCards(Workers):
    """Workers on cards that are files. `faults` has what was said to be faulty."""

    def __init__(self, folder: Path, *names: str, **options: float) -> None:
        super().__init__(1, folder / "scratch")
        self.nodes = tempfile.TemporaryDirectory(dir="/var/tmp")  # a box has its own /tmp
        self.files = {name: Path(self.nodes.name) / name for name in names}
        self.users: dict[str, frozenset[int]] = dict.fromkeys(names, frozenset())
        for path in self.files.values():
            path.write_bytes(bytes(VRAM_BYTES))
        self.cards = {
            name: Card(Gpu(uuid=name, nodes=(str(path),)), self._asker(name), pause_s=0, **options)
            for name, path in self.files.items()
        }
        self.faults: list[tuple[str, str]] = []
        self.faulty = self._hear

    def _asker(self, name: str) -> Callable[[], frozenset[int]]:
        return lambda: self.users[name]

    async def _hear(self, device_id: str, reason: str) -> None:
        self.faults.append((device_id, reason))

    def _start(self, gpu: Gpu | None) -> Zygote:
        return Zygote.start(
            folders=[self.folder],
            isolation=self.isolation,
            gpu=gpu,
            readable=[INSIDE],
            environment={"PYTHONPATH": str(INSIDE), "CARD": gpu.nodes[0] if gpu else ""},
            serve="hostile:serve",
        )

    @asynccontextmanager
    async def job(self, name: str, device_id: str) -> AsyncIterator[int]:
        """Its worker's process; the block is left when the worker is gone."""
        scratch = self.folder / f"{name}-{device_id}-{random.getrandbits(64)}"
        (scratch / "out").mkdir(parents=True)
        task = RunTask(
            kernel=name, backend="cuda", params={}, inputs={}, ranges=(), chunk_units=1, out_dir=str(scratch / "out")
        )
        async with self.run(task, device_id=device_id, scratch=scratch, wall_s=60) as run:
            self.last = run
            yield run.pid

    async def answer(self, name: str, device_id: str) -> str:
        async with self.job(name, device_id):
            event = await self.last.next()
        assert isinstance(event, TaskFailed)
        return event.detail

    def canaries(self, name: str) -> int:
        return self.files[name].read_bytes().count(b"canary")


@asynccontextmanager
async def file_cards(folder: Path, *names: str, **options: float) -> AsyncIterator[FileCards]:
    workers = FileCards(folder, *names, **options)
    try:
        with trio.fail_after(120):
            yield workers
    finally:
        await workers.close()
        workers.nodes.cleanup()


@pytest.mark.trio
async def test_a_canary_of_one_job_is_not_there_for_the_next(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1") as cards:
        left = int(await cards.answer("leave", "GPU-1"))
        assert left > VRAM_BYTES // 1001
        assert cards.canaries("GPU-1") == left, "the card itself forgets nothing"
        seen = int(await cards.answer("look", "GPU-1"))
        held = hostile.FileMemory.HELD * hostile.FileMemory.PAGE
        assert seen <= held // 1000, "but what another process held all the while"
        assert cards.faults == []


@pytest.mark.trio
async def test_a_card_is_wiped_before_its_first_job_too(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1") as cards:
        at = VRAM_BYTES // 2
        with cards.files["GPU-1"].open("r+b") as file:
            file.seek(at)
            file.write(b"canary")
        assert await cards.answer("look", "GPU-1") == "0"


@pytest.mark.trio
async def test_a_card_that_waits_for_its_next_job_holds_nothing(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1") as cards, trio.open_nursery() as nursery:
        left = int(await cards.answer("leave", "GPU-1"))
        nursery.start_soon(cards.tidy)
        while cards.canaries("GPU-1") > left // 10:  # noqa: ASYNC110
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_card_has_one_consumer_and_cards_work_side_by_side(tmp_path: Path) -> None:
    order: list[str] = []
    async with file_cards(tmp_path, "GPU-1", "GPU-2") as cards, trio.open_nursery() as nursery:

        async def second() -> None:
            async with cards.job("look", "GPU-1"):
                order.append("the second begins")

        async with cards.job("stay", "GPU-1"):
            nursery.start_soon(second)
            assert await cards.answer("look", "GPU-2") == "0"
            assert cards.using("GPU-1")
            order.append("the first ends")
    assert order == ["the first ends", "the second begins"]


@pytest.mark.trio
async def test_a_card_is_free_only_when_the_driver_lists_the_process_no_more(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1") as cards, trio.open_nursery() as nursery:
        async with cards.job("leave", "GPU-1") as pid:
            cards.users["GPU-1"] = frozenset({pid, 1})
            await cards.last.next()
        seen: list[str] = []

        async def look() -> None:
            seen.append(await cards.answer("look", "GPU-1"))

        nursery.start_soon(look)
        while not cards.using("GPU-1"):  # noqa: ASYNC110
            await trio.sleep(0.005)
        for _ in range(20):
            await trio.sleep(0.02)
            assert seen == []
        assert cards.canaries("GPU-1") > 100, "nor is it wiped under a process that may still run"
        cards.users["GPU-1"] = frozenset({1})
    assert int(seen[0]) < 20


@pytest.mark.trio
async def test_a_driver_that_does_not_let_go_takes_its_card_away(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1", "GPU-2", gone_s=0.2) as cards:
        async with cards.job("leave", "GPU-1") as pid:
            cards.users["GPU-1"] = frozenset({pid})
        for _ in range(2):
            with pytest.raises(WorkerLost, match="did not let go"):
                await cards.answer("look", "GPU-1")
        assert [name for name, _ in cards.faults] == ["GPU-1"], "it is said once"
        assert await cards.answer("look", "GPU-2") == "0"


@pytest.mark.trio
async def test_a_card_that_cannot_be_wiped_is_not_used_again(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1") as cards:
        cards.files["GPU-1"].write_bytes(b"stuck" + bytes(VRAM_BYTES))
        with pytest.raises(WorkerLost, match="cannot be overwritten: CUDA_ERROR_ILLEGAL_ADDRESS"):
            await cards.answer("look", "GPU-1")
        assert cards.faults == [("GPU-1", "its memory cannot be overwritten: CUDA_ERROR_ILLEGAL_ADDRESS")]


@pytest.mark.trio
async def test_the_market_hears_of_a_card_that_is_faulty(tmp_path: Path) -> None:
    card = Device(device_id="GPU-1", kind=DeviceKind.CUDA, model="Card", memory_bytes=2**34, backends=("cpu",))
    async with open_world(tmp_path) as world:
        world.probe.present = [card]
        async with world.node(jobs_parallel=4) as node:
            assert isinstance(node, Node)
            await world.coordinator.until(lambda: bool(world.coordinator.offers))
            assert world.coordinator.offers[-1].jobs_parallel == 1, "whatever the setting"
            await world.workers.faulty("GPU-1", "its memory cannot be overwritten")
            await world.coordinator.until(lambda: world.coordinator.offers[-1].availability is Availability.OFFLINE)
            await world.workers.faulty("GPU-1", "once more")


# What the box shows -------------------------------------------------------------------------------------------------


def test_only_the_assigned_card_s_nodes_are_bound() -> None:
    gpu = rules.nvidia("GPU-1", 3)
    assert gpu.nodes == ("/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm")
    view = rules.View(readable=("/opt/python",), folders=("/data/scratch",), gpu=gpu)
    words = rules.bwrap_words("bwrap", view, {}, ())
    assert {word for word in words if "nvidia" in word or "dri" in word} == set(gpu.nodes)
    without = rules.bwrap_words("bwrap", rules.View(readable=(), folders=()), {}, ())
    assert not any("nvidia" in word for word in without)


def shown(pid: int, cards: FileCards) -> list[str]:
    return [name for name, path in cards.files.items() if os.path.exists(f"/proc/{pid}/root{path}")]


@pytest.mark.trio
async def test_another_card_is_not_there(tmp_path: Path) -> None:
    async with file_cards(tmp_path, "GPU-1", "GPU-2") as cards:
        async with cards.job("stay", "GPU-1") as pid:
            assert shown(pid, cards) == ["GPU-1"]
            assert sorted(os.listdir(f"/proc/{pid}/root/dev")) == ["full", "null", "random", "shm", "urandom", "zero"]
        async with cards.job("stay", "") as pid:
            assert shown(pid, cards) == []


@pytest.mark.trio
async def test_what_a_driver_s_library_may_do_more_leads_nowhere(tmp_path: Path) -> None:
    """Sockets of its own process, and the driver's own requests; no network, no program, no other worker."""
    async with file_cards(tmp_path, "GPU-1") as cards:
        zygote = await cards.warm("GPU-1")
        scratch = tmp_path / "scratch" / "mine"
        scratch.mkdir()

        def attempt(name: str, *words: object) -> hostile.Outcome:
            worker = zygote.fork(scratch=scratch)
            with worker.sock:
                worker.sock.settimeout(60)
                worker.sock.sendall(hostile.tasks.encode_frame(hostile.Probe(name=name, words=words)))
                return hostile.msgspec.msgpack.decode(hostile.tasks._receive(worker.sock), type=hostile.Outcome)

        assert attempt("open_socket", int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET)).error == 0
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            assert attempt("open_socket", int(family), int(socket.SOCK_STREAM)).error == EPERM
        for name in ("fork", "execute"):
            assert attempt(name).error == EPERM
        refused = attempt("system_calls", ["ptrace", "mount", "unshare", "bpf", "kcmp", "pidfd_getfd", "shmget"]).said
        assert set(refused.values()) == {EPERM}
        for request in (0x5412, 0x541C, 0x1_0000_5412):
            assert attempt("terminal_input", request).error == EPERM


@pytest.mark.parametrize("kind", ["box", "limited"])
@pytest.mark.parametrize("gpu", [rules.nvidia("GPU-1", 0), None], ids=["a card", "no card"])
def test_only_on_a_card_a_worker_names_its_threads_and_writes_nothing_else_of_proc(
    tmp_path: Path, kind: str, gpu: Gpu | None
) -> None:
    """CUDA's library gives its threads names, and does not start where it cannot."""
    scratch = tmp_path / "mine"
    scratch.mkdir()
    isolation = machine.found_here() if kind == "box" else Isolation("limited", "for this test")
    assert isolation.kind == kind, isolation.reason
    zygote = Zygote.start(
        folders=[scratch],
        isolation=isolation,
        gpu=gpu,
        readable=[INSIDE],
        environment={"PYTHONPATH": str(INSIDE)},
        serve="hostile:serve",
    )

    def error(name: str, *words: object) -> int:
        worker = zygote.fork(scratch=scratch)
        with worker.sock:
            worker.sock.settimeout(60)
            worker.sock.sendall(hostile.tasks.encode_frame(hostile.Probe(name=name, words=words)))
            said = hostile.msgspec.msgpack.decode(hostile.tasks._receive(worker.sock), type=hostile.Outcome)
        return int(said.error)

    try:
        for way in ("write_anew", "write_existing"):
            assert (error(way, "/proc/thread-self/comm") == 0) is (gpu is not None), way
        for name in (
            "self/oom_score_adj",
            "self/mem",
            "sys/kernel/core_pattern",
            "thread-self/uid_map",
            "sysrq-trigger",
        ):
            assert error("write_existing", f"/proc/{name}") in (EPERM, EACCES, EROFS, ENOENT), name
        assert error("terminal_input", 0x5412) == EPERM
        assert error("terminal_input", 0x462A) == (ENOTTY if gpu is not None else EPERM)
        if kind == "limited":
            for way in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                assert error("open_socket", int(socket.AF_UNIX), int(way)) == EPERM
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
                door.bind(str(tmp_path / "door"))
                assert error("send_from_a_pair", str(tmp_path / "door")) == EPERM
            assert (error("pair") == 0) is (gpu is not None)
    finally:
        zygote.close()


# Overwriting --------------------------------------------------------------------------------------------------------


class Fragments:
    """A `wipe.Memory` with free blocks of these sizes, whoever holds what lies between."""

    def __init__(self, *sizes: int) -> None:
        self.free, self.cleared, self.taken = list(sizes), 0, 0

    def free_bytes(self) -> int:
        return sum(self.free)

    def take(self, size: int) -> int:
        for number, room in enumerate(self.free):
            if room >= size:
                self.free[number] -= size
                self.taken += size
                return size
        raise MemoryError

    def clear(self, block: int, size: int) -> None:
        self.cleared += size

    def clear_on_chip(self) -> None:
        assert self.taken == 0, "it needs room itself"


@pytest.mark.parametrize("seed", range(5))
def test_every_free_block_is_taken_however_the_memory_is_divided(seed: int) -> None:
    chance = random.Random(seed)
    memory = Fragments(*(chance.randrange(1, 20 * 1024) * MIB + chance.randrange(MIB) for _ in range(12)))
    before = memory.free_bytes()
    done = overwrite(memory)
    assert done == Wiped(free_bytes=before, cleared_bytes=memory.cleared)
    assert done.whole
    assert before - memory.cleared < 12 * 512


def test_a_part_is_not_the_whole() -> None:
    assert not Wiped(free_bytes=80 * 1024 * MIB, cleared_bytes=70 * 1024 * MIB).whole
    assert Wiped(free_bytes=0, cleared_bytes=0).whole


def test_what_overwrites_shared_memory_is_machine_code_that_fills_a_block_s_share() -> None:
    (found,) = [one for one in sass.report("8.0", "qubix_kernels.box.cuda") if one.function == "zero_shared"]
    assert (found.local_bytes, found.spilled_bytes) == (0, 0)
    assert found.shared_bytes == 48 * 1024
    assert found.registers <= found.registers_max


def test_this_machine_makes_boxes() -> None:
    assert machine.found_here().kind == "box"

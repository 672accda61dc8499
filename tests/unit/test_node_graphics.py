# SPDX-License-Identifier: Apache-2.0
"""Cards of AMD, Intel and Apple: which are offered, once each; what /sys tells of them; what their boxes show."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from qubix_kernels.adapters import Adapter
from qubix_kernels.box.rules import View, bwrap_words
from qubix_node.errors import NothingToOffer
from qubix_node.gpu import drm, rules, wgpu
from qubix_node.gpu.boxes import cards_of
from qubix_node.gpu.detect import probes
from qubix_node.gpu.wgpu import WgpuProbe
from qubix_node.settings import from_mappings
from qubix_protocol.messages import Device
from qubix_protocol.settings import SettingsError
from qubix_protocol.states import DeviceKind
from tests.kernels.webgpu import need_adapter

GIB = 1024**3
RADEON = Adapter(
    name="AMD Radeon RX 7900 XTX (RADV NAVI31)",
    driver="Mesa 25.0.1",
    kind="discrete",
    api="Vulkan",
    vendor_id=0x1002,
    device_id=0x744C,
    buffer_bytes=4 * GIB,
)
ARC = Adapter(name="Intel(R) UHD 770", kind="integrated", api="Vulkan", vendor_id=0x8086, device_id=0x4680)
GEFORCE = Adapter(name="NVIDIA GeForce RTX 4090", kind="discrete", api="Vulkan", vendor_id=0x10DE, device_id=0x2684)
LAVAPIPE = Adapter(name="llvmpipe (LLVM 15.0.6, 256 bits)", kind="software", api="Vulkan", vendor_id=0x10005)
SWIFT = Adapter(name="SwiftShader Device (LLVM 10)", kind="unknown", api="Vulkan", vendor_id=0x1AE0, device_id=0xC0DE)
WARP = Adapter(name="Microsoft Basic Render Driver", kind="discrete", api="D3D12", vendor_id=0x1414, device_id=0x8C)
VIRTUAL = Adapter(name="Virtio-GPU Venus", kind="unknown", api="Vulkan", vendor_id=0x1AF4, device_id=0x1050)
APPLE = Adapter(name="Apple M3", kind="integrated", api="Metal", buffer_bytes=9 * GIB)


def other(adapter: Adapter, **changes: object) -> Adapter:
    return Adapter(**{name: getattr(adapter, name) for name in Adapter.__struct_fields__} | changes)  # type: ignore[arg-type]


def node(adapter: Adapter, slot: str = "0000:03:00.0", *, usable: bool = True) -> drm.RenderNode:
    place = Path(f"/sys/devices/pci0000:00/{slot}")
    return drm.RenderNode(Path("/dev/dri/renderD128"), place, slot, adapter.vendor_id, adapter.device_id, usable)


def names(found: tuple[list[rules.Graphics], dict[str, str]]) -> tuple[list[str], list[str]]:
    return [one.adapter.name for one in found[0]], sorted(found[1])


Case = tuple[list[Adapter], list[drm.RenderNode] | None, list[str], list[str]]
CASES: dict[str, Case] = {
    "a card with its node": ([RADEON], [node(RADEON)], [RADEON.name], []),
    "two of a kind": (
        [RADEON, RADEON],
        [node(RADEON), node(RADEON, "0000:0b:00.0")],
        [RADEON.name, RADEON.name],
        [],
    ),
    "one card by two drivers": (
        [RADEON, other(RADEON, name="AMD Radeon RX 7900 XTX", driver="AMDVLK")],
        [node(RADEON)],
        [RADEON.name],
        ["AMD Radeon RX 7900 XTX"],
    ),
    "one card by two interfaces": (
        [other(ARC, api="D3D12"), ARC],
        None,
        [ARC.name],
        [],
    ),
    "two of a name that nothing tells apart": ([RADEON, RADEON], None, [RADEON.name], []),
    "a card without a node": ([RADEON], [], [], [RADEON.name]),
    "a node that may not be opened": ([RADEON], [node(RADEON, usable=False)], [], [RADEON.name]),
    "NVIDIA's": ([GEFORCE, ARC], [node(GEFORCE), node(ARC)], [ARC.name], [GEFORCE.name]),
    "NVIDIA's by another driver": ([other(GEFORCE, name="NVIDIA AD102 (NVK)")], None, [], ["NVIDIA AD102 (NVK)"]),
    "software": ([LAVAPIPE, SWIFT, WARP], None, [], sorted([LAVAPIPE.name, SWIFT.name, WARP.name])),
    "what does not say what it is": ([VIRTUAL], [node(VIRTUAL)], [], [VIRTUAL.name]),
    "Apple's": ([APPLE], None, [APPLE.name], []),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_which_are_offered_and_which_not(case: str) -> None:
    adapters, nodes, offered, left = CASES[case]
    assert names(rules.graphics(adapters, nodes, software=False)) == (offered, left)


def test_software_is_offered_where_a_test_allows_it_and_nothing_else_changes() -> None:
    found, left = rules.graphics([LAVAPIPE, SWIFT, GEFORCE, VIRTUAL, RADEON], [node(RADEON)], software=True)
    assert [one.adapter for one in found] == [LAVAPIPE, SWIFT, RADEON]
    assert [one.node for one in found] == [None, None, node(RADEON)]
    assert sorted(left) == sorted([GEFORCE.name, VIRTUAL.name])


def test_whoever_may_not_open_a_card_is_told_the_group() -> None:
    assert "group `render`" in rules.unreachable([node(RADEON, usable=False)])
    assert rules.unreachable([node(RADEON), node(GEFORCE, usable=False)]) == ""


# /sys ----------------------------------------------------------------------------------------------------------------


class Tree:
    """A machine's /sys and /dev, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def card(self, adapter: Adapter, slot: str, **gauges: str) -> Path:
        device = self.root / "sys/devices/pci0000:00" / slot
        name = f"renderD{128 + self.count}"
        self.count += 1
        (device / "drm" / name).mkdir(parents=True)
        files = {"vendor": hex(adapter.vendor_id), "device": hex(adapter.device_id)} | gauges
        for place, text in files.items():
            path = device / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        entry = self.root / "sys/class/drm" / name
        entry.mkdir(parents=True)
        (entry / "device").symlink_to(device)
        (self.root / "dev/dri").mkdir(parents=True, exist_ok=True)
        (self.root / "dev/dri" / name).touch()
        return self.root / "dev/dri" / name


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


AMDGPU = {
    "gpu_busy_percent": "87",
    "mem_busy_percent": "12",
    "mem_info_vram_total": str(24 * GIB),
    "mem_info_vram_used": str(3 * GIB),
    "mem_info_gtt_total": str(16 * GIB),
    "mem_info_gtt_used": "4096",
    "hwmon/hwmon4/temp1_input": "61000",
    "hwmon/hwmon4/power1_average": "210000000",
    "hwmon/hwmon4/power1_cap": "339000000",
    "hwmon/hwmon4/freq1_input": "2304000000",
    "hwmon/hwmon4/freq2_input": "1249000000",
    "hwmon/hwmon4/fan1_input": "1100",
    "hwmon/hwmon4/fan1_max": "3300",
}


def probe(
    tree: Tree, adapters: Sequence[Adapter], *, software: bool = False, look: Callable[[], list[Adapter]] | None = None
) -> WgpuProbe:
    asked = look or (lambda: list(adapters))
    root = drm.Drm(tree.root)
    return WgpuProbe("12D3KooWabcdefghijkl", ("webgpu",), software=software, look=asked, root=root, system="linux")


def test_all_that_amdgpu_tells_is_read(tree: Tree) -> None:
    tree.card(RADEON, "0000:03:00.0", **AMDGPU)
    found = probe(tree, [RADEON])
    (device,) = found.devices()
    assert device == Device(
        device_id="wgpu-abcdefghijkl-0000:03:00.0",
        kind=DeviceKind.WEBGPU,
        model=RADEON.name,
        memory_bytes=24 * GIB,
        driver="Mesa 25.0.1 (Vulkan, discrete)",
        backends=("webgpu",),
    )
    sample = found.sample(device.device_id)
    assert sample is not None
    assert (sample.utilisation_pct, sample.memory_busy_pct) == (87, 12)
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (3 * GIB, 24 * GIB)
    assert (sample.temperature_c, sample.power_mw, sample.power_limit_mw) == (61, 210_000, 339_000)
    assert (sample.clock_mhz, sample.memory_clock_mhz) == (2304, 1249)
    assert sample.fan_pct == pytest.approx(100 / 3)


def test_what_a_driver_does_not_show_is_said_and_left_open(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "qubix_node")
    tree.card(ARC, "0000:00:02.0", **{"drm/card0/gt_act_freq_mhz": "1300", "gpu_busy_percent": "no number"})
    found = probe(tree, [ARC])
    (device,) = found.devices()
    assert device.memory_bytes == psutil.virtual_memory().total // 2, "it takes its memory from the machine's"
    sample = found.sample(device.device_id)
    assert sample is not None
    assert sample.clock_mhz == 1300
    assert (sample.utilisation_pct, sample.temperature_c, sample.memory_total_bytes) == (None, None, None)
    (line,) = [record for record in caplog.records if record.getMessage() == "gpu.graphics"]
    assert vars(line)["not_told"] == [name for name in wgpu.GAUGES if name != "clock_mhz"]


def test_a_processor_s_graphics_unit_has_its_part_and_what_it_may_take(tree: Tree) -> None:
    own = {"mem_info_vram_total": str(GIB // 2), "mem_info_vram_used": "100", "mem_info_gtt_total": str(14 * GIB)}
    tree.card(other(RADEON, kind="integrated"), "0000:0c:00.0", **own, mem_info_gtt_used="11")
    (device,) = probe(tree, [other(RADEON, kind="integrated")]).devices()
    assert device.memory_bytes == 14 * GIB + GIB // 2


def test_a_card_that_tells_no_memory_has_as_much_as_a_buffer(tree: Tree) -> None:
    tree.card(RADEON, "0000:03:00.0")
    (device,) = probe(tree, [RADEON]).devices()
    assert device.memory_bytes == RADEON.buffer_bytes


def test_a_card_whose_node_vanishes_is_lost_and_the_other_stays(tree: Tree) -> None:
    gone = tree.card(RADEON, "0000:03:00.0", **AMDGPU)
    tree.card(RADEON, "0000:0b:00.0", **AMDGPU)
    found = probe(tree, [RADEON, RADEON])
    first, second = found.devices()
    gone.unlink()
    assert found.sample(first.device_id) is None
    assert "is gone" in found.lost(first.device_id)
    assert found.devices() == [second]
    assert found.sample(second.device_id) is not None
    assert found.lost(second.device_id) == ""


def test_nothing_is_asked_where_there_is_nothing_to_ask(tree: Tree) -> None:
    def never() -> list[Adapter]:
        raise AssertionError("no driver may be loaded")

    tree.card(GEFORCE, "0000:01:00.0")
    found = probe(tree, [], look=never)
    assert found.devices() == []
    assert "no other graphics card" in found.reason


def test_drivers_that_fail_are_told(tree: Tree) -> None:
    def fails() -> list[Adapter]:
        raise RuntimeError("a graphics driver did not answer within 20 s")

    tree.card(RADEON, "0000:03:00.0")
    found = probe(tree, [], look=fails)
    assert (found.devices(), found.reason) == ([], "a graphics driver did not answer within 20 s")
    assert "Vulkan" in probe(tree, []).reason


def test_a_name_from_a_driver_cannot_spoil_a_statement(tree: Tree) -> None:
    odd = other(RADEON, name="  Radeon\x00\n" + "x" * 500)
    tree.card(odd, "0000:03:00.0")
    (device,) = probe(tree, [odd]).devices()
    assert device.model == ("Radeon " + "x" * 500)[:200]


# Boxes ---------------------------------------------------------------------------------------------------------------


def test_a_box_shows_this_card_s_render_node_and_no_other(tree: Tree) -> None:
    tree.card(RADEON, "0000:03:00.0")
    tree.card(RADEON, "0000:0b:00.0")
    found = probe(tree, [RADEON, RADEON])
    first, second = (cards_of([found])[device.device_id].gpu for device in found.devices())
    dri = tree.root / "dev/dri"
    assert (first.nodes, second.nodes) == ((str(dri / "renderD128"),), (str(dri / "renderD129"),))
    words = bwrap_words("bwrap", View(readable=(), folders=(), gpu=first), first.variables, ())
    assert {word for word in words if "renderD" in word or "nvidia" in word} == set(first.nodes)
    assert str(tree.root / "sys/devices/pci0000:00/0000:03:00.0") in words
    assert str(tree.root / "sys/devices/pci0000:00/0000:0b:00.0") not in words
    assert first.variables["WGPUPY_WGPU_ADAPTER_NAME"] == RADEON.name
    assert first.variables["CUDA_VISIBLE_DEVICES"] == ""


# The choice of hardware ----------------------------------------------------------------------------------------------


def test_the_child_really_asks_and_this_process_loads_no_driver() -> None:
    need_adapter()
    assert any(rules.is_software(adapter) and adapter.buffer_bytes >= 2**27 for adapter in wgpu.by_child())
    code = "import sys, qubix_node.daemon, qubix_node.selftest.alone; print('wgpu' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("choice", ["auto", "gpu"])
def test_software_counts_only_where_a_test_says_so(choice: str) -> None:
    choose = partial(probes, choice, "12D3KooWabcdefghijkl", (), ("webgpu",), look=lambda: [LAVAPIPE])
    devices = [device for one in choose(software=True) for device in one.devices()]
    assert [(one.kind, one.fallback) for one in devices] == [(DeviceKind.WEBGPU, True)]
    if choice == "gpu":
        with pytest.raises(NothingToOffer):
            choose()
    else:
        assert [device.kind for one in choose() for device in one.devices()] == [DeviceKind.CPU]


def test_software_is_never_offered_on_the_main_network() -> None:
    wish = {"QUBIX_ALLOW_FALLBACK_ADAPTERS": "yes"}
    assert from_mappings(wish, {}).allow_fallback_adapters
    assert not from_mappings({}, {}).allow_fallback_adapters
    with pytest.raises(SettingsError, match="QUBIX_ALLOW_FALLBACK_ADAPTERS"):
        from_mappings(wish | {"QUBIX_NETWORK": "main"}, {})

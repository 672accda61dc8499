# SPDX-License-Identifier: Apache-2.0
"""The one door to wgpu, for the kernels' own `webgpu.py`: shaders in WGSL on Vulkan, Metal or Direct3D 12, and so on
cards of AMD, Intel and Apple.

Importing this loads wgpu's library and touches no GPU; the first `device()` opens the card that this process sees, the
fastest one unless `WGPUPY_WGPU_ADAPTER_NAME` names another (wgpu's own variable, as CUDA has one). Only workers get
here: `spec.py` imports a `webgpu.py` inside `run` alone.

Drivers of cards with a screen end what takes them seconds. So nothing is started that is expected to take longer than
`TARGET_S`: a kernel divides its work by a `Pace`, and waits for each dispatch.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
import wgpu
from wgpu.backends.wgpu_native.extras import set_instance_extras

from qubix_protocol.arrays import Array

__all__ = [
    "TARGET_S",
    "Device",
    "DeviceFailed",
    "NoDevice",
    "Pace",
    "Shader",
    "Storage",
    "adapter",
    "adapters",
    "blocks_for",
    "device",
    "working",
]

TARGET_S: Final = 0.1
"""What a dispatch should take: long beside the cost of starting it, short beside any driver's patience."""
LOOP_MAX: Final = 65_535
"""So often an invocation may loop in all: Mesa's software driver stops there without a word."""
GROUPS_MAX: Final = 65_535
"""Workgroups in one direction, which every implementation allows."""
_BACKENDS: Final = ("Vulkan", "Metal", "DX12")
"""Not OpenGL: what it has is there as Vulkan too, and is slower."""
_LIMITS: Final = ("max-buffer-size", "max-storage-buffer-binding-size")
_BINDING_BYTES_MAX: Final = 2**31 - 256
"""Some drivers count a binding's bytes in 31 bits."""

Buffer = Any


class NoDevice(LookupError):
    """No card is here that wgpu could use; the message says so."""


class DeviceFailed(RuntimeError):
    """The driver refused or broke off; the message is its own word. The worker is of no more use."""


@dataclass(frozen=True, kw_only=True)
class Shader:
    """`shader.wgsl` of one kernel. Binding 0 is its uniform; `storage` says of the others, from 1 on, whether the
    shader only reads them ("read") or writes them ("write")."""

    kernel: str
    entries: tuple[str, ...]
    storage: tuple[str, ...]

    @functools.cached_property
    def source(self) -> str:
        return resources.files("qubix_kernels").joinpath(self.kernel, "shader.wgsl").read_text("utf-8")


@dataclass(frozen=True)
class Storage:
    """A buffer on the device; `give_back` frees its room now, not when Python gets to it."""

    buffer: Buffer
    nbytes: int

    def give_back(self) -> None:
        self.buffer.destroy()


class Pace:
    """How much work a dispatch may be, by what earlier ones took. `work` is in the kernel's own unit, such as flops."""

    def __init__(self, first: float) -> None:
        self.work = self._least = first

    def learn(self, work: float, seconds: float) -> None:
        """The most that a dispatch may be from now on: growing slowly, falling at once."""
        ideal = work * TARGET_S / max(seconds, 1e-6)
        self.work = max(self._least, min(ideal, 4 * self.work))


class Device:
    """The card that this process computes on. What wgpu says comes out of `working`."""

    def __init__(self, adapter: Any, binding_bytes_max: int = _BINDING_BYTES_MAX) -> None:
        told = adapter.limits
        self.info: dict[str, Any] = dict(adapter.info)
        self._device = adapter.request_device_sync(required_limits={name: told[name] for name in _LIMITS})
        self._queue = self._device.queue
        self.binding_bytes = min(*(int(self._device.limits[name]) for name in _LIMITS), binding_bytes_max)
        """So large a buffer may be."""
        self.paces: dict[Shader, Pace] = {}
        self.speeds: dict[Shader, float] = {}
        """Work a second, of shaders whose dispatches do not tell."""
        self.kept: dict[Shader, Any] = {}
        """What stays here between the chunks of a job."""
        self._layouts: dict[Shader, Any] = {}
        self._pipelines: dict[tuple[Shader, str], Any] = {}

    def pace(self, shader: Shader, first: float) -> Pace:
        return self.paces.setdefault(shader, Pace(first))

    def send(self, array: Array) -> Storage:
        """A copy on the device. Its bytes must be a multiple of four."""
        plain = np.ascontiguousarray(array)
        usage = wgpu.BufferUsage.STORAGE
        return Storage(
            self._device.create_buffer_with_data(data=plain.reshape(-1).view(np.uint8), usage=usage), plain.nbytes
        )

    def empty(self, nbytes: int) -> Storage:
        """Room on the device, zeros."""
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
        return Storage(self._device.create_buffer(size=nbytes, usage=usage), nbytes)

    def fetch(self, storage: Storage, dtype: Any) -> Array:
        """A copy on the host, flat; waits for the dispatches before it, whose errors are raised here."""
        return np.frombuffer(self._queue.read_buffer(storage.buffer), dtype)

    def bind(self, shader: Shader, params_bytes: int, storages: Sequence[Storage]) -> "Bound":
        """`storages` in the order of the shader's bindings."""
        usage = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        uniform = self._device.create_buffer(size=params_bytes, usage=usage)
        buffers = (uniform, *(one.buffer for one in storages))
        entries = [{"binding": i, "resource": {"buffer": buffer}} for i, buffer in enumerate(buffers)]
        group = self._device.create_bind_group(layout=self._layout(shader), entries=entries)
        return Bound(self, shader, uniform, group, storages[-1])

    def start(self, bound: "Bound", params: bytes, steps: Sequence[tuple[str, tuple[int, int]]]) -> None:
        """Starts entry points one after the other, each on so many workgroups; does not wait."""
        self._queue.write_buffer(bound.uniform, 0, params)
        encoder = self._device.create_command_encoder()
        for entry, groups in steps:
            work = encoder.begin_compute_pass()
            work.set_pipeline(self._pipeline(bound.shader, entry))
            work.set_bind_group(0, bound.group)
            work.dispatch_workgroups(*groups)
            work.end()
        self._queue.submit([encoder.finish()])

    def wait(self, storage: Storage) -> None:
        """Until everything that was started has ended. Reading four bytes is the wait that every version has."""
        self._queue.read_buffer(storage.buffer, 0, 4)

    def _layout(self, shader: Shader) -> Any:
        if shader not in self._layouts:
            kinds = ["uniform", *({"read": "read-only-storage", "write": "storage"}[one] for one in shader.storage)]
            seen = wgpu.ShaderStage.COMPUTE
            entries = [{"binding": i, "visibility": seen, "buffer": {"type": kind}} for i, kind in enumerate(kinds)]
            self._layouts[shader] = self._device.create_bind_group_layout(entries=entries)
        return self._layouts[shader]

    def _pipeline(self, shader: Shader, entry: str) -> Any:
        if (shader, entry) not in self._pipelines:
            layout = self._device.create_pipeline_layout(bind_group_layouts=[self._layout(shader)])
            module = self._device.create_shader_module(code=shader.source)
            compute = {"module": module, "entry_point": entry}
            self._pipelines[shader, entry] = self._device.create_compute_pipeline(layout=layout, compute=compute)
        return self._pipelines[shader, entry]


@dataclass(frozen=True)
class Bound:
    """A shader with what it reads and writes; `last` is waited for."""

    device: Device
    shader: Shader
    uniform: Buffer
    group: Any
    last: Storage

    def run(self, params: bytes, *steps: tuple[str, tuple[int, int]]) -> float:
        """Runs entry points and waits for their end; how many seconds that took."""
        began = time.perf_counter()
        self.device.start(self, params, steps)
        self.device.wait(self.last)
        return time.perf_counter() - began


@functools.cache
def _instance() -> None:
    set_instance_extras(backends=_BACKENDS, flags=("Empty",))


def adapters() -> list[Any]:
    """Everything that wgpu finds here, software included, in its own order; `info` and `limits` say what it is."""
    _instance()
    return list(wgpu.gpu.enumerate_adapters_sync())


def adapter() -> Any:
    """Of the card that this process computes on. Raises `NoDevice`."""
    _instance()
    try:
        found = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
    except (RuntimeError, ValueError) as error:
        raise NoDevice(f"no card can be used through Vulkan, Metal or Direct3D 12: {_line(error)}") from error
    if found is None:
        raise NoDevice("no card can be used through Vulkan, Metal or Direct3D 12: install its driver")
    return found


@functools.cache
def device() -> Device:
    """Opened once in a process. Raises `NoDevice`."""
    return Device(adapter())


@contextmanager
def working(on: Device | None = None) -> Iterator[Device]:
    """Work on this process's device, or on `on`, happens inside: what wgpu says comes out as `MemoryError`, `NoDevice`
    or `DeviceFailed`."""
    try:
        yield on or device()
    except wgpu.GPUOutOfMemoryError as error:
        raise MemoryError(f"the device has no room for this: {_line(error)}") from error
    except (wgpu.GPUError, wgpu.GPUPipelineError) as error:
        raise DeviceFailed(f"the device failed: {_line(error)}") from error


def blocks_for(size: int, per_block: int) -> int:
    return -(-size // per_block)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]

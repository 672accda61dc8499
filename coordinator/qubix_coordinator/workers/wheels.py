# SPDX-License-Identifier: Apache-2.0
"""Two wheels that no index has: this very code, and libp2p's compiled part with GMP inside.

Both are put together from what runs here: no compiler is started and nothing is fetched. The same files give the same
bytes, so a wheel's name and hash stay the same for as long as its content does.
"""

import base64
import hashlib
import io
import re
import subprocess
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

PACKAGES: Final = ("qubix_protocol", "qubix_kernels", "qubix_chain", "qubix_mesh", "qubix_node", "qubix")
"""What a worker needs: neither coordinator nor terminal."""
COMPILED: Final = "fastecdsa"
_GMP: Final = re.compile(r"libgmp\.so\.\d+")
_GLIBC: Final = re.compile(rb"GLIBC_(\d+)\.(\d+)")
_LDD_S: Final = 20
_OLDEST: Final = (2, 17)
"""Of glibc, that every pip knows by this name."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_GENERATOR: Final = "Generator: qubix\n"
# A library that is loaded already satisfies what names it: no search path has to be written into compiled files.
_PRELOAD: Final = (
    "import ctypes as _ctypes\nimport pathlib as _pathlib\n\n"
    '_ctypes.CDLL(str(_pathlib.Path(__file__).parent / "{library}"))\n'
)


@dataclass(frozen=True, slots=True)
class Wheel:
    name: str
    version: str
    file: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def own() -> Wheel:
    """This code as it runs here, in a version of its own: `0.1.0+w` and the beginning of its digest."""
    files = {name: data for package in PACKAGES for name, data in _sources(package)}
    here = metadata.distribution("qubix")
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + hashlib.sha256(files[name]).digest())
    version = f"{here.version.partition('+')[0]}+w{digest.hexdigest()[:12]}"
    info = f"qubix-{version}.dist-info"
    files[f"{info}/METADATA"] = _renamed(here.read_text("METADATA") or "", version)
    files[f"{info}/entry_points.txt"] = _entry_points(here)
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\n{_GENERATOR}Root-Is-Purelib: true\nTag: py3-none-any\n".encode()
    return Wheel("qubix", version, f"qubix-{version}-py3-none-any.whl", _packed(files, info))


def _sources(package: str) -> Iterator[tuple[str, bytes]]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if path.is_file() and "__pycache__" not in place.parts and path.suffix != ".pyc":
            yield (PurePosixPath(package) / place.as_posix()).as_posix(), path.read_bytes()


def _renamed(text: str, version: str) -> bytes:
    """With our version, and without what leads a resolver to parts that a worker does not have."""
    return re.sub(r"(?m)^Version: .*$", f"Version: {version}", text, count=1).encode()


def _entry_points(here: metadata.Distribution) -> bytes:
    lines: dict[str, list[str]] = {}
    for point in sorted(here.entry_points, key=lambda one: (one.group, one.name)):
        if point.value.partition(":")[0].partition(".")[0] in PACKAGES:
            lines.setdefault(point.group, []).append(f"{point.name} = {point.value}")
    return "\n".join(f"[{group}]\n" + "\n".join(names) + "\n" for group, names in lines.items()).encode()


def compiled() -> Wheel | None:
    """The one that is installed here, with its GMP beside it, for this system and Python; None where that cannot be
    made: its worker then compiles it, and needs what that takes."""
    try:
        here = metadata.distribution(COMPILED)
    except metadata.PackageNotFoundError:
        return None
    files = {
        str(path): path.locate().read_bytes()  # type: ignore[attr-defined]
        for path in here.files or ()
        if "__pycache__" not in path.parts and not path.parts[0].endswith(".dist-info") and ".." not in path.parts
    }
    if not (libraries := {name: data for name, data in files.items() if name.endswith(".so")}):
        return None
    gmp = _gmp_of(here, libraries)
    if gmp is not None:
        library = gmp.name if _GMP.fullmatch(gmp.name) else "libgmp.so.10"
        files[f"{COMPILED}/{library}"] = libraries["gmp"] = gmp.read_bytes()
        init = f"{COMPILED}/__init__.py"
        files[init] = _PRELOAD.format(library=library).encode() + files[init]
    return _repacked(here, files, libraries)


def _repacked(here: metadata.Distribution, files: dict[str, bytes], libraries: Mapping[str, bytes]) -> Wheel | None:
    python = f"cp{sysconfig.get_config_var('py_version_nodot')}"
    platform = _platform(libraries.values())
    if platform is None:
        return None
    info, tag = f"{COMPILED}-{here.version}.dist-info", f"{python}-{python}-{platform}"
    files[f"{info}/METADATA"] = (here.read_text("METADATA") or "").encode()
    for path in here.files or ():
        if path.parts[0] == info and "licenses" in path.parts:
            files[str(path)] = path.locate().read_bytes()  # type: ignore[attr-defined]
    # A build number: an index may have another wheel of this version.
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\n{_GENERATOR}Root-Is-Purelib: false\nBuild: 1qubix\nTag: {tag}\n".encode()
    )
    file = f"{COMPILED}-{here.version}-1qubix-{tag}.whl"
    return Wheel(COMPILED, here.version, file, _packed(files, info))


def _gmp_of(here: metadata.Distribution, libraries: Mapping[str, bytes]) -> Path | None:
    """The GMP that the compiled parts are linked to, unless it stands beside them already."""
    if any(_GMP.fullmatch(PurePosixPath(name).name) for name in libraries):
        return None
    first = Path(str(here.locate_file(next(iter(sorted(libraries))))))
    try:
        said = subprocess.run(["ldd", str(first)], capture_output=True, text=True, timeout=_LDD_S, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"libgmp\.so\.\d+ => (\S+)", said)
    return Path(found[1]) if found else None


def _platform(libraries: Iterable[bytes]) -> str | None:
    """By the newest symbols of glibc that they ask for: what is older than that cannot load them."""
    here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not here.startswith("linux_"):
        return here
    needed = [(int(major), int(minor)) for data in libraries for major, minor in _GLIBC.findall(data)]
    if not needed:
        return None
    major, minor = max([_OLDEST, *needed])
    return f"manylinux_{major}_{minor}_{here.removeprefix('linux_')}"


def _packed(files: Mapping[str, bytes], info: str) -> bytes:
    buffer = io.BytesIO()
    record = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as wheel:
        for name in sorted(files):
            digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode().rstrip("=")
            record.append(
                f'"{name}",sha256={digest},{len(files[name])}'
                if "," in name
                else f"{name},sha256={digest},{len(files[name])}"
            )
            _put(wheel, name, files[name])
        _put(wheel, f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]).encode())
    return buffer.getvalue()


def _put(wheel: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o755 if name.endswith(".so") or ".so." in name else 0o644) << 16
    wheel.writestr(entry, data)

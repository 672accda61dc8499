# SPDX-License-Identifier: Apache-2.0
"""The file that a person starts: quoting, pins, what it says when something is missing; and the wheels it installs."""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
import tree_sitter
import tree_sitter_powershell
from packaging.requirements import Requirement

from qubix_coordinator.workers import installer as installers
from qubix_coordinator.workers import shelf as shelves
from qubix_coordinator.workers import wheels
from qubix_coordinator.workers.installer import PLACES, Terms, compiled_for, installer, script_of
from qubix_coordinator.workers.shelf import Shelf
from qubix_protocol.errors import BadSignature
from qubix_protocol.keys import SigningKey
from qubix_protocol.worker import Manifest, SignedManifest, WorkerFile, believed

KEY = SigningKey(b"c" * 32)
ROOT = Path(__file__).resolve().parents[2]
TERMS = Terms("https://market.example:8443", KEY.public.hex(), "0123-4567-89AB-CDEF-GHJK-MNPQ-RS", "3.11")
SYSTEMS = ("linux", "macos", "windows")
HOSTILE = 'x\'; touch "$HOME/owned" `touch owned` $(touch owned) @@CODE@@ \\'
OWN_PYTHON = f"py{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return shelves.filled(KEY, "devnet", tmp_path_factory.mktemp("none"))


def manifest() -> Manifest:
    def file(name: str) -> WorkerFile:
        return WorkerFile(name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), size_bytes=1)

    return Manifest(
        network="devnet",
        version="0.1.0+wabc",
        requirements={name: file(f"requirements-{name}.txt") for name in ("py3.11", "py3.11-cuda13", "py3.12")},
        wheels=(
            file("qubix-0.1.0+wabc-py3-none-any.whl"),
            file("fastecdsa-2.3.2-1qubix-cp311-cp311-manylinux_2_14_x86_64.whl"),
        ),
    )


def script(system: str, terms: Terms = TERMS) -> str:
    """The shell's part of it."""
    name, content = installer(system, manifest(), terms)  # type: ignore[arg-type]
    if system == "linux":
        return content.decode()
    if system == "macos":
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            assert file.namelist() == [name.removesuffix(".zip")]
            return file.read(file.namelist()[0]).decode()
    inner = re.search(r"\$installer = @'\r\n(.*?)\r\n'@", content.decode(), re.DOTALL)
    assert inner is not None
    return base64.b64decode(inner[1]).decode()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_it_is_a_script_of_which_nothing_is_left_to_fill_in(system: str, shell: str) -> None:
    text = script(system)
    assert not re.search(r"@@[A-Z_]+@@", text)
    subprocess.run([shell, "-n"], input=text, text=True, check=True, timeout=60)
    assert text.startswith("#!/bin/sh\n")
    assert text.rstrip().endswith('main "$@"'), "a file that was cut off does nothing"
    assert TERMS.code in text


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_linter_of_shell_scripts_finds_nothing(system: str) -> None:
    """But for text that shows a command with `$(…)` in it, and is to stay text."""
    linter = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [linter, "--shell=sh", "--exclude=SC2016", "-"],
        input=script(system),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("field", ["coordinator", "coordinator_key", "code"])
def test_no_value_is_ever_run(system: str, field: str, tmp_path: Path) -> None:
    text = script(system, _changed(field))
    subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=60)
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "QUBIX_WORKER_ROOT": str(tmp_path / "none")}
    done = subprocess.run(
        ["sh", "-s", "--", "--status"],
        input=text,
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "none is installed" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "\nQUBIX_LIST\n" in text


def _changed(field: str) -> Terms:
    values = {name: getattr(TERMS, name) for name in ("coordinator", "coordinator_key", "code", "python")}
    return Terms(**{**values, field: HOSTILE})


@pytest.mark.parametrize("system", SYSTEMS)
def test_everything_that_is_fetched_stands_in_it_by_its_hash(system: str) -> None:
    text, found = script(system), manifest()
    for file in (*found.wheels, *found.requirements.values()):
        assert f"{file.sha256} {file.name}" in text
    assert "--require-hashes" in text
    assert "--trusted-host" not in text
    assert not re.search(r"\b(curl|wget|sudo -|eval)\b", text)


def test_windows_has_one_file_that_is_batch_and_powershell_at_once() -> None:
    name, content = installer("windows", manifest(), TERMS)
    text = content.decode()
    assert name == "qubix-worker.cmd"
    assert text.count("\r\n") == text.count("\n"), "cmd.exe reads no other line ends"
    lines = text.split("\r\n")
    assert lines[0] == "<# :", "a label to cmd.exe, the beginning of a comment to PowerShell"
    end = lines.index("#>")
    assert any(line.startswith("exit /b") for line in lines[:end])
    assert lines[1] == "@echo off"
    code = "\n".join(lines[end + 1 :])
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    assert not parser.parse(content).root_node.has_error
    broken = content.replace(b"if ($names.Count -eq 0) {", b"if ($names.Count -eq 0) (")
    assert parser.parse(broken).root_node.has_error, "the parser sees what is wrong"
    for cmdlet in ("Register-ScheduledTask", "Unregister-ScheduledTask", "New-ScheduledTaskTrigger -AtLogOn"):
        assert cmdlet in code
    assert "%~f0" not in code


def test_a_mac_file_may_be_started_after_it_was_unpacked() -> None:
    name, content = installer("macos", manifest(), TERMS)
    assert name == "qubix-worker.command.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        (entry,) = file.infolist()
        assert (entry.external_attr >> 16) & 0o777 == 0o700
    assert "Darwin" in script("macos")


def _run(tmp_path: Path, path: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The Linux file as an unprivileged user with nothing on the PATH but `path`."""
    tmp_path.chmod(0o777)
    file = tmp_path / "worker.sh"
    file.write_text(script("linux"))
    file.chmod(0o644)
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    become = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    return subprocess.run(
        [*become, "/bin/sh", str(file), *words],
        env={"HOME": str(tmp_path / "home"), "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """That another user can read."""
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_without_python_it_says_what_to_install_and_leaves_nothing(open_folder: Path) -> None:
    tools = open_folder / "bin"
    tools.mkdir()
    for name in ("uname", "id", "sed", "cat", "rm", "mkdir", "tail", "tr"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    tools.chmod(0o755)
    (open_folder / "home").mkdir()
    (open_folder / "home").chmod(0o777)
    done = _run(open_folder, str(tools))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[0].startswith("FAIL  Python: none of 3.11 3.12")
    assert "needs: one of 3.11 3.12" in done.stderr
    assert "do:    Debian, Ubuntu: sudo apt install python3" in done.stderr
    assert list((open_folder / "home").iterdir()) == []


def test_root_is_told_to_be_a_user(tmp_path: Path) -> None:
    whoever = tmp_path / "id"
    whoever.write_text("#!/bin/sh\necho 0\n")
    whoever.chmod(0o755)
    env = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-s"], input=script("linux"), env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "FAIL  User: this is root" in done.stderr
    assert not (tmp_path / "home").exists()


def test_another_system_is_told() -> None:
    done = subprocess.run(["sh", "-s"], input=script("macos"), capture_output=True, text=True, timeout=60, check=False)
    assert "FAIL  System: this is Linux" in done.stderr


# What it installs -----------------------------------------------------------------------------------------------------


def test_our_wheel_is_this_code_and_the_same_each_time(shelf: Shelf) -> None:
    first, second = wheels.own(), wheels.own()
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first.data)) as wheel:
        names = set(wheel.namelist())
        assert wheel.testzip() is None
        assert wheel.read("qubix_node/__main__.py") == (ROOT / "node/qubix_node/__main__.py").read_bytes()
        assert not any(name.startswith(("qubix_coordinator", "qubix_tui")) for name in names)
        assert not any("__pycache__" in name for name in names)
        points = wheel.read(f"qubix-{first.version}.dist-info/entry_points.txt").decode()
        assert "node = qubix_node\n" in points
        assert "worker = qubix_node.service\n" in points
        assert "qubix_coordinator" not in points
        assert f"\nVersion: {first.version}\n" in wheel.read(f"qubix-{first.version}.dist-info/METADATA").decode()
        _check_record(wheel, f"qubix-{first.version}.dist-info/RECORD")
    assert (first.sha256, first.file) in shelf.files


def _check_record(wheel: zipfile.ZipFile, record: str) -> None:
    lines = wheel.read(record).decode().splitlines()
    assert len(lines) == len(wheel.namelist())
    for line in lines:
        name, digest, size = line.strip().rsplit(",", 2)
        name = name.strip('"')
        if name == record:
            assert (digest, size) == ("", "")
            continue
        data = wheel.read(name)
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert int(size) == len(data)


def test_the_compiled_part_works_where_there_is_no_gmp(tmp_path: Path) -> None:
    """It brings its own: loaded from its folder, whatever the system has."""
    found = wheels.compiled()
    assert found is not None
    assert re.fullmatch(r"fastecdsa-[0-9.]+-1qubix-cp3\d+-cp3\d+-manylinux_2_\d+_\w+\.whl", found.file)
    with zipfile.ZipFile(io.BytesIO(found.data)) as wheel:
        assert "fastecdsa/libgmp.so.10" in wheel.namelist()
        _check_record(wheel, f"fastecdsa-{found.version}.dist-info/RECORD")
        wheel.extractall(tmp_path)
    code = (
        "from fastecdsa import curve, keys\n"
        "assert keys.get_public_key(2, curve.P256) == curve.P256.G + curve.P256.G\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libgmp' in line})\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "fastecdsa/libgmp.so.10")


def test_requirements_name_everything_by_hash_and_ours_too(shelf: Shelf) -> None:
    own = next(file for file in shelf.manifest.wheels if file.name.startswith("qubix-"))
    for name, file in shelf.manifest.requirements.items():
        text = shelf.files[file.sha256, file.name].decode()
        assert hashlib.sha256(text.encode()).hexdigest() == file.sha256
        entries = re.split(r"(?m)^(?=[^\s])", text)[1:]
        assert all(re.match(r"[a-z0-9-]+==", entry) and "--hash=sha256:" in entry for entry in entries), name
        assert f"qubix=={shelf.manifest.version} \\\n    --hash=sha256:{own.sha256}\n" in text
        assert "://" not in text
        packages = [entry.partition("==")[0] for entry in entries]
        assert sorted(packages[:-1]) == packages[:-1]
        assert len(set(packages)) == len(packages)
        assert ("cuda-toolkit" in packages) == ("cuda" in name)
    compiled = next(file for file in shelf.manifest.wheels if file.name.startswith("fastecdsa-"))
    mine = shelf.manifest.requirements[OWN_PYTHON]
    text = shelf.files[mine.sha256, mine.name].decode()
    assert f"--hash=sha256:{compiled.sha256} " in text[text.index("\nfastecdsa==") : text.index("\nflatbuffers==")]


def test_the_worker_installs_the_versions_that_are_tested() -> None:
    for name, text in shelves.locks().items():
        whole = (ROOT / "requirements" / f"{name.partition('-')[0]}.txt").read_text()
        tested = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", whole))
        found = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", text))
        assert {"libp2p", "trio", "numba", "onnxruntime", "psutil"} <= set(found)
        differing = {key for key, version in found.items() if tested.get(key, version) != version}
        assert all(key.startswith(("cuda", "nvidia")) for key in differing), (name, differing)


def test_every_package_that_a_node_needs_is_in_its_lock() -> None:
    wanted, extras = set(), ["", "node", "mesh", "worker"]
    for text in metadata.requires("qubix") or ():
        need = Requirement(text)
        if need.name != "qubix" and (
            need.marker is None or any(need.marker.evaluate({"extra": one}) for one in extras)
        ):
            wanted.add(need.name)
    assert len(wanted) > 15
    for name, lock in shelves.locks().items():
        assert wanted <= set(re.findall(r"(?m)^([a-z0-9-]+)==", lock)), name


def test_the_list_is_believed_by_its_signature_alone(shelf: Shelf) -> None:
    assert believed(shelf.signed, KEY.public) == shelf.manifest
    other = msgspec.structs.replace(shelf.signed, manifest=shelf.signed.manifest.replace("0.1.0", "0.2.0"))
    for signed, key in (
        (other, KEY.public),
        (shelf.signed, SigningKey(b"x" * 32).public),
        (SignedManifest(manifest=shelf.signed.manifest, signature="zz"), KEY.public),
        (SignedManifest(manifest=shelf.signed.manifest, signature=""), KEY.public),
    ):
        with pytest.raises(BadSignature):
            believed(signed, key)


def test_an_operators_wheel_is_offered_too(tmp_path: Path) -> None:
    name = f"fastecdsa-{wheels.compiled().version}-cp312-cp312-macosx_14_0_arm64.whl"  # type: ignore[union-attr]
    (tmp_path / name).write_bytes(b"a wheel")
    (tmp_path / "not a wheel.whl").write_bytes(b"x")
    found = shelves.filled(KEY, "devnet", tmp_path)
    sha256 = hashlib.sha256(b"a wheel").hexdigest()
    assert found.file(sha256, name) == b"a wheel"
    assert "cp312-Darwin-arm64" in compiled_for(found.manifest)
    assert sha256 in found.files[found.manifest.requirements["py3.12"].sha256, "requirements-py3.12.txt"].decode()
    assert not any("not a wheel" in file.name for file in found.manifest.wheels)


def test_where_the_compiled_part_is_ready(shelf: Shelf) -> None:
    assert compiled_for(manifest()) == ["cp311-Linux-x86_64"]
    (tag,) = compiled_for(shelf.manifest)
    assert tag == f"cp{sys.version_info[0]}{sys.version_info[1]}-{os.uname().sysname}-{os.uname().machine}"
    assert "x86_64" in script_of(PLACES["linux"], manifest(), TERMS).decode()
    assert set(PLACES) == {"linux", "macos"}
    assert installers.WINDOWS_FILE.endswith(".cmd")

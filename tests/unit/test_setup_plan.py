# SPDX-License-Identifier: Apache-2.0
"""What `make setup` decides, given what a machine has: scripts/setup.py is tried with machines unlike this one."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qubix_setup", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


setup = _load()

DEBIAN_PYTHON = setup.Interpreter(
    command="/usr/bin/python3.11",
    version=(3, 11, 2),
    prefix="/usr",
    include="/usr/include/python3.11",
    compiler="cc",
    has_venv=True,
)
ROOT_ON_DEBIAN = setup.Machine(is_root=True, package_manager="apt-get")
USER_ON_DEBIAN = setup.Machine(is_root=False, package_manager="apt-get")


def test_nothing_missing_means_nothing_to_do() -> None:
    assert setup.plan((), DEBIAN_PYTHON, ROOT_ON_DEBIAN) == setup.Plan()


def test_root_on_debian_installs_gmp_itself() -> None:
    plan = setup.plan((setup.GMP,), DEBIAN_PYTHON, ROOT_ON_DEBIAN)
    assert plan.remedy == ""
    assert plan.commands == (
        ("apt-get", "update"),
        ("apt-get", "install", "-y", "--no-install-recommends", "libgmp-dev"),
    )


def test_root_on_a_bare_debian_installs_everything_for_its_python_version() -> None:
    plan = setup.plan(setup.NEEDS, DEBIAN_PYTHON, ROOT_ON_DEBIAN)
    assert plan.commands[-1][4:] == (
        "gcc",
        "libc6-dev",
        "python3.11-dev",
        "libgmp-dev",
        "python3.11-venv",
        "bubblewrap",
    )


def test_a_user_is_told_the_exact_command() -> None:
    plan = setup.plan((setup.GMP, setup.VENV), DEBIAN_PYTHON, USER_ON_DEBIAN)
    assert plan.commands == ()
    assert "gmp.h" in plan.remedy
    assert "    sudo apt-get install -y libgmp-dev python3.11-venv" in plan.remedy.splitlines()


def test_on_a_mac_the_remedy_names_brew_and_where_its_headers_are() -> None:
    plan = setup.plan((setup.GMP,), DEBIAN_PYTHON, setup.Machine(is_root=False, package_manager="brew"))
    assert "    brew install gmp" in plan.remedy.splitlines()
    assert "CPATH" in plan.remedy


def test_an_unknown_system_is_told_what_is_missing() -> None:
    plan = setup.plan((setup.COMPILER,), DEBIAN_PYTHON, setup.Machine(is_root=True, package_manager=None))
    assert plan.commands == ()
    assert setup.COMPILER in plan.remedy


def test_a_hand_built_python_without_headers_is_not_mended_by_a_system_package() -> None:
    python = replace(DEBIAN_PYTHON, prefix="/opt/python", include="/opt/python/include")
    plan = setup.plan((setup.HEADERS,), python, ROOT_ON_DEBIAN)
    assert plan.commands == ()
    assert "PYTHON=" in plan.remedy


@pytest.mark.parametrize("manager", sorted(setup.INSTALL_COMMANDS))
def test_every_package_manager_knows_a_package_for_every_need(manager: str) -> None:
    needs = [
        need for need in setup.needs_of("test") if manager != "brew" or need not in (setup.BOX, setup.VULKAN)
    ]  # bubblewrap and Vulkan are for Linux alone
    assert all(setup.packages_for((need,), manager, "3.12") for need in needs)


@pytest.mark.parametrize(
    ("version", "supported"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_supported_versions(version: tuple[int, int, int], supported: bool) -> None:
    assert setup.is_supported(version) is supported


def test_supported_versions_are_those_with_locks() -> None:
    for major, minor in setup.SUPPORTED:
        for level in ("run", "test"):
            lock = setup.lock_file(ROOT, f"{major}.{minor}", level).read_text()
            assert "--hash=sha256:" in lock
            assert "libp2p==0.8.1" in lock


def test_a_command_that_is_no_python_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert setup.probe_interpreter(str(shim)) is None
    assert setup.probe_interpreter(str(tmp_path / "absent")) is None
    with pytest.raises(setup.SetupFailed, match=r"3\.11, 3\.12 or 3\.13"):
        setup.choose_interpreter(str(shim))


def test_this_machine_has_all_it_was_set_up_with() -> None:
    python = setup.probe_interpreter(sys.executable)
    assert setup.missing_needs(python, "test") == ()


def test_without_a_compiler_and_headers_both_are_reported_and_gmp_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    bare = replace(DEBIAN_PYTHON, include=str(tmp_path), compiler=str(tmp_path / "no-such-cc"), has_venv=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(setup, "VULKAN_DRIVERS", ())
    assert setup.missing_needs(bare) == setup.NEEDS
    assert setup.missing_needs(bare, "test") == setup.needs_of("test")


def test_without_the_box_set_up_goes_on_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "missing_needs", lambda python, level: (setup.BOX,))
    monkeypatch.setattr(setup, "this_machine", lambda: USER_ON_DEBIAN)
    setup.provide_needs(DEBIAN_PYTHON)
    assert "sudo apt-get install -y bubblewrap" in capsys.readouterr().out
    monkeypatch.setattr(setup, "missing_needs", lambda python, level: (setup.BOX, setup.BROWSER))
    setup.provide_needs(DEBIAN_PYTHON, "test")
    assert "the tests of the web pages fail" in capsys.readouterr().out
    monkeypatch.setattr(setup, "missing_needs", lambda python, level: (setup.GMP, setup.BOX))
    with pytest.raises(setup.SetupFailed, match="libgmp-dev bubblewrap"):
        setup.provide_needs(DEBIAN_PYTHON)


def test_gmp_is_looked_for_by_compiling() -> None:
    assert not setup.compiles(["cc"], "#include <no_such_header_of_qubix.h>\nint main(void) { return 0; }")
    assert setup.compiles(["cc"], "int main(void) { return 0; }")


def _tree(tmp_path: Path) -> tuple[Path, Path]:
    """A project folder with locks and an environment that looks made."""
    (tmp_path / "requirements").mkdir()
    for name in ("py3.11.txt", "py3.11-test.txt"):
        (tmp_path / "requirements" / name).write_text("a==1\n")
    (tmp_path / "requirements" / "models.txt").write_text("m==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return tmp_path, venv


def test_a_stamp_is_believed_until_something_changes(tmp_path: Path) -> None:
    root, venv = _tree(tmp_path)
    assert not setup.is_current(root, venv, "run")
    setup.write_stamp(root, venv, "3.11.2", "run")
    assert setup.is_current(root, venv, "run")
    assert not setup.is_current(root, venv, "test")
    (root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert not setup.is_current(root, venv, "run")


def test_the_test_environment_serves_for_running_too(tmp_path: Path) -> None:
    root, venv = _tree(tmp_path)
    setup.write_stamp(root, venv, "3.11.2", "test")
    assert setup.is_current(root, venv, "run")
    assert setup.is_current(root, venv, "test")


def test_a_new_lock_a_new_python_or_a_lost_python_end_the_stamp(tmp_path: Path) -> None:
    root, venv = _tree(tmp_path)
    setup.write_stamp(root, venv, "3.11.2", "test")
    (root / "requirements" / "py3.11-test.txt").write_text("a==2\n")
    assert setup.is_current(root, venv, "run")
    assert not setup.is_current(root, venv, "test")
    (venv / "pyvenv.cfg").write_text("version = 3.11.9\n")
    assert not setup.is_current(root, venv, "run")
    (venv / "bin" / "python").unlink()
    assert setup.venv_version(venv) is None


def test_an_environment_made_elsewhere_is_not_kept(tmp_path: Path) -> None:
    root, venv = _tree(tmp_path)
    python = replace(DEBIAN_PYTHON, version=(3, 11, 2))
    pip = venv / "bin" / "pip"
    for folder, kept in ((venv, True), (root / "moved" / ".venv", False)):
        pip.write_text(f"#!/bin/sh\n# {folder}/bin/python\nexit 0\n")
        pip.chmod(0o755)
        assert setup.is_usable(venv, python) is kept
    assert not setup.is_usable(venv, replace(python, version=(3, 11, 3)))


def test_an_up_to_date_environment_is_left_alone_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, venv = _tree(tmp_path)
    setup.write_stamp(root, venv, "3.11.2", "run")
    setup.setup(root, "run", None)
    assert capsys.readouterr().out == ""


def test_a_second_setup_waits_for_the_first(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\nimport setup, pathlib\n"
    code += f"with setup.only_one(pathlib.Path({str(tmp_path)!r})): print('inside', flush=True)"
    with setup.only_one(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline().startswith("Another setup is running")
    rest, _ = other.communicate(timeout=30)
    assert rest == "inside\n"


def test_a_command_that_fails_shows_its_last_words_and_the_advice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such package'); raise SystemExit(3)"]
    log = tmp_path / "log"
    with pytest.raises(setup.SetupFailed, match=r"(?s)no such package.*look at the network"):
        setup.logged(tmp_path, command, "look at the network", log)
    assert "no such package" in log.read_text()

# SPDX-License-Identifier: Apache-2.0
"""The web pages: built once for what they are made of, told when they cannot be, typed by the API that is served."""

import importlib.util
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"qubix_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hook, setup = _load("web_build"), _load("setup")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose npm writes down what it is asked, and builds one page."""
    (tmp_path / "web" / "src").mkdir(parents=True)
    (tmp_path / "web" / "src" / "main.ts").write_text("1")
    (tmp_path / "coordinator" / "qubix_coordinator").mkdir(parents=True)
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n"
        f'[ -e {tmp_path}/fails ] && {{ echo "no registry"; exit 7; }}\n'
        'if [ "$1" = run ]; then mkdir -p dist/assets; echo page > dist/index.html; echo js > dist/assets/a.js; fi\n'
    )
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(hook, "npm_of_system", lambda: [str(npm)])
    return tmp_path


def _asked(project: Path) -> list[str]:
    told = project / "asked"
    return told.read_text().split("\n")[:-1] if told.exists() else []


def test_it_is_built_once_for_what_it_is_made_of(project: Path) -> None:
    assert hook.build(project)
    assert not hook.build(project)
    assert _asked(project) == ["ci", "run build"]
    out = project / hook.OUTPUT
    assert (out / "index.html").read_text() == "page\n"
    assert (out / "index.html.gz").is_file()
    assert (out / "assets" / "a.js.gz").is_file()
    (project / "web" / "src" / "main.ts").write_text("2")
    assert hook.build(project)
    assert len(_asked(project)) == 4


def test_what_is_generated_or_downloaded_changes_nothing(project: Path) -> None:
    before = hook.digest(project / "web")
    for place in ("node_modules/x/index.js", "dist/index.html", "src/lib/api/schema.d.ts"):
        path = project / "web" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("made")
    assert hook.digest(project / "web") == before
    (project / "web" / "src" / "more.ts").write_text("")
    assert hook.digest(project / "web") != before


def test_a_shader_is_a_source_of_the_pages(project: Path) -> None:
    before = hook.digest(project / "web")
    shader = project / "kernels" / "qubix_kernels" / "matmul" / "shader.wgsl"
    shader.parent.mkdir(parents=True)
    shader.write_text("1")
    first = hook.digest(project / "web")
    shader.write_text("2")
    assert len({before, first, hook.digest(project / "web")}) == 3


def test_a_build_that_fails_leaves_the_last_pages_and_is_tried_again(project: Path) -> None:
    assert hook.build(project)
    (project / "web" / "src" / "main.ts").write_text("2")
    (project / "fails").touch()
    with pytest.raises(subprocess.CalledProcessError):
        hook.build(project)
    assert (project / hook.OUTPUT / "index.html").read_text() == "page\n"
    assert not hook.is_built(project, hook.digest(project / "web"))
    (project / "fails").unlink()
    assert hook.build(project)


def test_setup_goes_on_without_the_pages_and_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = project / "scripts" / "web_build.py"
    script.parent.mkdir()
    script.write_text("import sys; print('no registry'); sys.exit(1)")
    venv = project / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    monkeypatch.setattr(setup, "WEB_BUILD", script)
    monkeypatch.setattr(setup, "web_build", lambda: hook)
    setup.build_web(project, project / ".venv")
    said = capsys.readouterr().out
    assert "no registry" in said
    assert "Everything else runs without them" in said


def test_the_pages_types_are_of_the_api_that_is_served() -> None:
    served = _load("docs_openapi")
    assert served.FILE.read_text() == served.text(), "run `make docs`"


def test_no_address_of_a_registry_is_in_the_lock() -> None:
    lock = (ROOT / "web" / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock

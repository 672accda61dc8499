# SPDX-License-Identifier: Apache-2.0
"""Starts parts in order, each when the one before is ready; restarts what dies; stops all in reverse order."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from qubix.errors import BadSettings, StartFailed
from qubix.up import logs, rules
from qubix.up.child import BARE, Child
from qubix.up.signals import Wakeups

READY_S: Final = 90.0
STOP_S: Final = 4.5
STEP_S: Final = 0.8
"""How long a stopping child is waited for before the next one is told to stop too."""
_TRIM_S: Final = 60.0
_GUARD: Final = str(Path(__file__).with_name("guard.py"))
Env = Mapping[str, str]


def _no_env(env: Env, last: Env) -> dict[str, str]:
    return {}


def _no_exports(info: dict[str, Any]) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`exports` is what its ready line tells the parts after it. `env` is what this part alone is told, asked when it
    starts, from what all are told and from what it exported the last time (nothing at first)."""

    name: str
    command: Sequence[str]
    env: Callable[[Env, Env], dict[str, str]] = _no_env
    exports: Callable[[dict[str, Any]], dict[str, str]] = _no_exports


class Listener(Protocol):
    """Who is told what happens, to print it."""

    def started(self, part: Part, child: Child, seconds: float) -> None: ...

    def died(self, part: Part, how: str, restart_s: float) -> None: ...

    def stopping(self, why: str) -> None: ...


class Supervisor:
    """`ready_s` bounds each part's start."""

    def __init__(
        self, parts: Sequence[Part], env: Env, logs_dir: Path, listener: Listener, *, ready_s: float = READY_S
    ) -> None:
        self._parts, self._env, self._logs, self._listener = parts, env, logs_dir, listener
        self._ready_s = ready_s
        self._children: dict[str, Child] = {}
        self._exports: dict[str, dict[str, str]] = {}
        self._deaths: dict[str, list[float]] = {}
        self._wakeups = Wakeups()
        self._guard: subprocess.Popen[bytes] | None = None

    def run(self, when_ready: Callable[[Env], None]) -> None:
        """Until SIGINT, SIGTERM or SIGHUP; nothing is left then. Raises `StartFailed` when a part cannot be kept up."""
        with self._wakeups.installed(), self._guarded():
            try:
                if self._start_from(0):
                    when_ready(self._shared_env())
                    self._watch()
            finally:
                self._stop_all()

    # Starting

    def _start_from(self, index: int) -> bool:
        """Starts this part and all after it; False when asked to stop meanwhile."""
        return all(self._start(part) for part in self._parts[index:])

    def _start(self, part: Part) -> bool:
        began = time.monotonic()
        env = self._shared_env(before=part.name)
        log = logs.path_of(self._logs, part.name)
        child = Child(part.name, part.command, {**env, **part.env(env, self._exports.get(part.name, {}))}, log)
        self._children[part.name] = child
        self._tell_guard("+", child)
        while not self._ready(part, child, began):
            if self._wakeups.stop:
                return False
            self._wakeups.wait(1.0, [child.ready_fd])
        assert child.info is not None
        self._exports[part.name] = part.exports(child.info)
        self._listener.started(part, child, time.monotonic() - began)
        return True

    def _ready(self, part: Part, child: Child, began: float) -> bool:
        """Raises `StartFailed` when it ended, or took too long."""
        if child.ready_fd >= 0 and child.read_ready() and child.info is not None:
            return True
        if child.status is not None or child.ready_fd < 0:
            raise self._failed(part, f"the {part.name} {self._ending(child)} before it was ready")
        if time.monotonic() - began > self._ready_s:
            raise self._failed(part, f"the {part.name} was not ready within {self._ready_s:g} s")
        self._check_before(part)
        return False

    def _check_before(self, part: Part) -> None:
        """Nobody gets ready on a part that is gone."""
        for other in self._parts[: self._parts.index(part)]:
            status = self._children[other.name].status
            if status is not None:
                raise self._failed(
                    other, f"the {other.name} {rules.how_it_ended(status)} while the {part.name} started"
                )

    def _ending(self, child: Child) -> str:
        """How it ended; a child that closed its pipe without a word is given a moment to end by itself."""
        end = time.monotonic() + 2.0
        while child.status is None and time.monotonic() < end:
            self._wakeups.wait(0.05)
        return "closed its ready pipe" if child.status is None else rules.how_it_ended(child.status)

    def _failed(self, part: Part, problem: str) -> StartFailed:
        child = self._children[part.name]
        kind = BadSettings if child.status == rules.BAD_SETTINGS else StartFailed
        return kind(f"{problem}. Its last words:\n{child.last_words()}", remedy=f"The whole log is {child.log}.")

    def _shared_env(self, before: str | None = None) -> dict[str, str]:
        env = dict(self._env)
        for part in self._parts:
            if part.name == before:
                break
            env |= self._exports.get(part.name, {})
        return env

    # Watching

    def _watch(self) -> None:
        trimmed = time.monotonic()
        while not self._wakeups.stop:
            dead = next((i for i, part in enumerate(self._parts) if self._children[part.name].status is not None), None)
            if dead is None:
                self._wakeups.wait(_TRIM_S)
            elif not self._restart(dead):
                return
            if time.monotonic() - trimmed > _TRIM_S:
                trimmed = time.monotonic()
                for part in self._parts:
                    logs.trim(logs.path_of(self._logs, part.name))

    def _restart(self, index: int) -> bool:
        """The dead part again, and those after it when it says something else than before; False: asked to stop."""
        part = self._parts[index]
        child = self._children[part.name]
        before = self._exports.get(part.name, {})
        if not self._pause(part, rules.how_it_ended(child.status or 0)):
            return False
        self._tell_guard("-", child)
        child.close_pipe()
        try:
            if not self._start(part):
                return False
        except StartFailed:
            self._children[part.name].kill()
            if len(self._deaths[part.name]) >= rules.RESTARTS_MAX:
                raise
            return True
        if self._exports[part.name] == before:
            return True
        self._stop(self._parts[index + 1 :])
        return self._start_from(index + 1)

    def _pause(self, part: Part, how: str) -> bool:
        now = time.monotonic()
        deaths = self._deaths[part.name] = [*rules.recent(self._deaths.get(part.name, []), now), now]
        wait_s = rules.restart_after_s(len(deaths))
        if wait_s is None:
            raise self._failed(part, f"the {part.name} {how}, {len(deaths)} times within a minute")
        self._listener.died(part, how, wait_s)
        while time.monotonic() < now + wait_s and not self._wakeups.stop:
            self._wakeups.wait(now + wait_s - time.monotonic())
        return not self._wakeups.stop

    # Stopping

    def _stop_all(self) -> None:
        if self._children:
            self._listener.stopping(self._wakeups.stop.name if self._wakeups.stop else "a failure")
        self._stop(self._parts)

    def _stop(self, parts: Sequence[Part]) -> None:
        """Reverse order, each given a moment before the next; whatever lives after `STOP_S` is killed."""
        end = time.monotonic() + STOP_S
        children = [self._children[part.name] for part in reversed(parts) if part.name in self._children]
        for child in children:
            child.terminate()
            self._wait_gone([child], min(end, time.monotonic() + STEP_S))
        self._wait_gone(children, end)
        for child in children:
            child.kill()
            child.close_pipe()
            self._tell_guard("-", child)
            del self._children[child.name]

    def _wait_gone(self, children: Sequence[Child], end: float) -> None:
        while any(child.status is None for child in children) and time.monotonic() < end:
            self._wakeups.wait(min(0.2, end - time.monotonic()))

    # The guard

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        command = [*BARE, _GUARD]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        ) as guard:
            self._guard = guard
            yield

    def _tell_guard(self, sign: str, child: Child) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            os.write(self._guard.stdin.fileno(), f"{sign}{child.pid}\n".encode())

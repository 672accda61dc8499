# SPDX-License-Identifier: Apache-2.0
"""The page of a market that has just started, in the browser of whoever started it."""

import sys
import threading
import webbrowser
from collections.abc import Mapping

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def is_there(env: Mapping[str, str], *, interactive: bool, platform: str = sys.platform) -> bool:
    """Whether a window would be seen by a person at this machine. Over SSH, or in a script, nobody looks at one, and a
    browser for text would take the terminal."""
    if not interactive or env.get("SSH_CONNECTION"):
        return False
    return platform in ("darwin", "win32") or any(env.get(name) for name in _DISPLAYS)


def show(url: str) -> None:
    """In a thread of its own: some browsers are waited for. `BROWSER` chooses one (Python's `webbrowser`)."""
    threading.Thread(target=webbrowser.open, args=(url,), name="browser", daemon=True).start()

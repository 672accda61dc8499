# SPDX-License-Identifier: Apache-2.0
"""Small files that must be whole or as they were."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def replace_json(path: Path, value: Any) -> None:
    """Makes the folder when there is none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

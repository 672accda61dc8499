# SPDX-License-Identifier: Apache-2.0
"""What travels between a parent and its worker is made of this. A worker may have become anybody's: what it says is
bounded by type, and read as data alone."""

from typing import Annotated

import msgspec
from msgspec import Meta

DETAIL_MAX = 4000
Milliseconds = Annotated[float, Meta(ge=0, le=1e11)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Word = Annotated[str, Meta(max_length=100)]
Words = Annotated[str, Meta(max_length=DETAIL_MAX)]


class Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of what travels between parent and worker."""

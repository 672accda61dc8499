# SPDX-License-Identifier: Apache-2.0
"""Money: double entry in integer QU. `post` is the one door in, `read` the way out, `audit` the proof."""

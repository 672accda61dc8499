# SPDX-License-Identifier: Apache-2.0
"""QU that come in from outside."""

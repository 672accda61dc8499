# SPDX-License-Identifier: Apache-2.0
"""A GPU for a time, paid by the answered second."""

# SPDX-License-Identifier: Apache-2.0
"""Jobs and their attempts: from a signed order to a checked, paid result."""

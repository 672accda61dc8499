# SPDX-License-Identifier: Apache-2.0
"""Work: assignments, workers, results."""

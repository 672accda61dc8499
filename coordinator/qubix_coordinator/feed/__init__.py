# SPDX-License-Identifier: Apache-2.0
"""The market as many watch it at once: one table a process, one matcher a query, the same bytes to all who watch it."""

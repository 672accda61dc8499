# SPDX-License-Identifier: Apache-2.0
"""Content-addressed artifacts: rows per account, encrypted bytes in a folder or an object store."""

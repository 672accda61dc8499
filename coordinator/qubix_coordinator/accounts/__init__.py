# SPDX-License-Identifier: Apache-2.0
"""People and machines: accounts, their keys, API tokens and enrolled nodes."""

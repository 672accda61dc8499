# SPDX-License-Identifier: Apache-2.0
"""Events written in the transaction that caused them and read, in one order, by whoever follows."""

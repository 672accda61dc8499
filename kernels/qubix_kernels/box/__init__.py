# SPDX-License-Identifier: Apache-2.0
"""The box: what a worker may see, use and outlive (trust.md "The box"; docs/adr/0012). `layer` has it in order."""

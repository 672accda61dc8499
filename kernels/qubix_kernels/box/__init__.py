# SPDX-License-Identifier: Apache-2.0
"""The box: what a worker may see, use and outlive (trust.md "The box"). README.md has the layers in order."""

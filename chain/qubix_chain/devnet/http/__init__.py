# SPDX-License-Identifier: Apache-2.0
"""The devnet's edge: the network's own API by its exact shapes, and `/devnet/v1`. The only importer of Quart here."""

# SPDX-License-Identifier: Apache-2.0
"""What owners want of their devices from afar."""

# SPDX-License-Identifier: Apache-2.0
"""What a native worker installs itself from: wheels, pinned requirements, and the installer that names them by hash."""

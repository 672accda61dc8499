# SPDX-License-Identifier: Apache-2.0
"""The worker that installs itself: its folder, the service that starts it at login, update and uninstall."""

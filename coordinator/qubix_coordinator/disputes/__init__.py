# SPDX-License-Identifier: Apache-2.0
"""What happens when a consumer and a provider do not agree."""

# SPDX-License-Identifier: Apache-2.0
"""Everything that knows libp2p. Importing it costs 90 MB and most of a second."""

import warnings

with warnings.catch_warnings():
    # libp2p 0.8.1 imports parts of websockets that are deprecated; that is nothing our users can mend.
    warnings.simplefilter("ignore", DeprecationWarning)
    import libp2p as libp2p

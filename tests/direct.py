"""For requests to a port of this machine, of which a proxy that the environment names knows nothing."""

from __future__ import annotations

import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

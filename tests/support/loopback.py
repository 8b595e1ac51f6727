"""Requests to servers of this machine."""

from __future__ import annotations

import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Goes there straight: Python's own opener keeps the proxies that were set when it was first asked."""

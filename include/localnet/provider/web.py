"""The HTTP client for addresses that come from outside: files and other Providers."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

# One for all, because making one reads every certificate authority. It keeps no cookies: what one asset's server
# sets must not be sent in another asset's name.
WEB = httpx.Client(
    trust_env=False,
    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=10),
)

"""The HTTP clients: one for addresses that come from outside (files, other Providers), and how to make others."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

# One for all clients: each would hold every certificate authority in memory again.
_CERTIFICATES = httpx.create_ssl_context(trust_env=False)


def client_of(timeout: float) -> httpx.Client:
    """Return a client for one service.

    :param timeout: seconds
    """
    return httpx.Client(timeout=timeout, trust_env=False, verify=_CERTIFICATES)


# It keeps no cookies: what one asset's server sets must not be sent in another asset's name.
WEB = httpx.Client(
    trust_env=False,
    verify=_CERTIFICATES,
    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    # Servers close a connection that was idle for five seconds, this very Provider among them, which is asked who it is: a
    # request must not meet that.
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=10, keepalive_expiry=2.0),
)

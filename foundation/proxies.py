"""HTTP proxies of the environment, and servers that are reached without them.

Many companies set `http_proxy` for all programs of a machine. A proxy cannot reach 127.0.0.1 of
that machine, where Ray's dashboard, `transloom serve` or a test object store often listens.
"""

import os
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_BYPASS = ("no_proxy", "NO_PROXY")  # some libraries prefer the first, some the second


def bypass_proxies(*addresses: str) -> None:
    """Let this process and its children reach loopback addresses without a proxy.

    The function extends `no_proxy` in the environment, because the libraries that send requests
    share nothing else. It does so only if a proxy is set.

    Args:
        addresses: URLs, or hosts with or without a port. Addresses of other machines are ignored.
    """
    if not any(name.lower().endswith("_proxy") and name not in _BYPASS for name in os.environ):
        return
    hosts = [host for address in addresses if _is_loopback(host := _split(address).hostname or "")]
    # For IPv6, urllib expects brackets, and requests expects none.
    names = [name for host in hosts for name in ((host, f"[{host}]") if ":" in host else (host,))]
    bypassed = [os.environ.get(name, "") for name in _BYPASS]
    for variable, value in zip(_BYPASS, bypassed, strict=True):
        present = [part for part in (value or next(filter(None, bypassed), "")).split(",") if part]
        if present != ["*"]:  # urllib accepts a star only as the whole value
            added = [name for name in names if name not in present]
            os.environ[variable] = ",".join(present + added)


def proxy_hint(address: str) -> str:
    """Return a clause about the proxy between this process and a URL, or "" if there is none.

    Append it to the reason why a request failed. It shows no credential and no part of the URL.
    """
    from urllib.request import getproxies_environment, proxy_bypass

    url = _split(address)
    proxies = getproxies_environment()
    kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
    if not url.scheme or kind is None or proxy_bypass(url.netloc.rpartition("@")[2]):
        return ""
    variable = next(name for name in os.environ if name.lower() == f"{kind}_proxy")
    proxy = _split(proxies[kind]).netloc.rpartition("@")[2]
    return (
        f", through the proxy {proxy} of {variable}; add the host to no_proxy if it can be reached "
        "without the proxy"
    )


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address if "://" in address else f"//{address}")
    except ValueError:  # for example, an unmatched bracket
        return urlsplit("")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

"""Requests that bypass the proxies of the environment, as requests and urllib decide it."""

import os
from urllib.request import getproxies, proxy_bypass

import pytest
import requests.utils

from foundation.proxies import LOOPBACK, bypass_proxies, proxy_hint

PROXY = "http://me:secret@proxy.example:3128"


@pytest.fixture
def set_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):  # restores variables that the tested code sets
        monkeypatch.setenv(name, "")
        os.environ.pop(name)
    return lambda **variables: [monkeypatch.setenv(*item) for item in variables.items()]


def is_bypassed(url: str) -> bool:
    by_requests = requests.utils.should_bypass_proxies(url, None)
    by_urllib = bool(proxy_bypass(url.split("/")[2]))
    assert by_requests == by_urllib
    return by_requests


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8265",
        "http://127.0.1.1:8265",
        "https://localhost",
        "http://LOCALHOST:80",
        "http://head.localhost",
        "http://[::1]:8265",
    ],
)
def test_bypass_proxies_excludes_loopback_addresses(set_proxy, proxy, url):
    set_proxy(**{proxy: PROXY})
    bypass_proxies(url, "http://head.example:8265")
    assert is_bypassed(url.lower())
    assert not is_bypassed("http://head.example:8265")
    assert proxy_hint(url) == ""


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_bypass_proxies_keeps_the_users_no_proxy(set_proxy, variable):
    set_proxy(http_proxy=PROXY, **{variable: "a.example,.b.example"})
    for _ in range(2):
        bypass_proxies(*LOOPBACK)
    wanted = "a.example,.b.example,localhost,127.0.0.1,::1,[::1]"
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (wanted, wanted)
    assert is_bypassed("http://x.b.example")
    assert is_bypassed("http://127.0.0.1:1")


def test_bypass_proxies_leaves_a_no_proxy_of_star_unchanged(set_proxy):
    set_proxy(http_proxy=PROXY, no_proxy="*")
    bypass_proxies(*LOOPBACK)
    assert is_bypassed("http://a.example")
    assert os.environ["no_proxy"] == "*"


def test_bypass_proxies_changes_nothing_without_a_proxy(set_proxy):
    bypass_proxies(*LOOPBACK)
    assert "no_proxy" not in os.environ
    assert getproxies() == {}


@pytest.mark.parametrize("address", ["http://[::1", "", "head:6379"])
def test_bypass_proxies_accepts_an_address_that_is_not_a_url(set_proxy, address):
    set_proxy(ALL_PROXY=PROXY)
    bypass_proxies(address)
    assert proxy_hint(address) == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [("http_proxy", PROXY), ("HTTP_PROXY", "me:secret@proxy.example:3128"), ("ALL_PROXY", PROXY)],
)
def test_the_hint_names_the_proxy_of_a_url_without_its_password(set_proxy, variable, value):
    set_proxy(**{variable: value}, https_proxy="http://other.example")
    hint = proxy_hint("http://head.example:8265")
    assert f"proxy.example:3128 of {variable}" in hint
    assert "no_proxy" in hint
    assert "secret" not in hint
    assert "head.example" not in hint
    set_proxy(no_proxy="head.example")
    assert proxy_hint("http://head.example:8265") == ""

"""A test does not change the process for the tests after it."""

import os
import urllib.error
import urllib.request

import pytest

from foundation.free_ports import free_port


def test_urllib_keeps_the_proxy_of_its_first_request_within_a_test(monkeypatch):
    proxy = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://an.example/")
    handlers = urllib.request._opener.handlers
    assert any(getattr(handler, "proxies", {}).get("http") == proxy for handler in handlers)


def test_urllib_has_no_proxy_of_the_previous_test():
    assert urllib.request._opener is None


def test_nice_does_not_change_the_priority_of_the_test_process():
    before = os.nice(0)
    assert os.nice(5) == before

"""A test leaves nothing in the process that the next one would meet."""

import os
import urllib.error
import urllib.request

import pytest
from support.ports import free_port


def test_a_request_through_a_proxy_that_is_gone(monkeypatch):
    proxy = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://an.example/")
    handlers = urllib.request._opener.handlers
    assert any(getattr(handler, "proxies", {}).get("http") == proxy for handler in handlers)


def test_the_next_test_has_no_proxy_of_the_one_before():
    assert urllib.request._opener is None


def test_the_priority_of_this_process_stays():
    before = os.nice(0)
    assert os.nice(5) == before

"""The fault proxy of the tests, used by a client without retries."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from support.cluster.processes import wait_until
from support.storage.fault_proxy import (
    Answer,
    AppliedThen,
    CutAnswer,
    CutRequest,
    Delay,
    Fault,
    FaultProxy,
    Hold,
    LostAnswer,
    Rewrite,
    Skew,
    Slow,
    Stall,
    StallBody,
    StallUpload,
)
from support.storage.s3_server import KEY_ID, S3Server

# Moto reads the key's name but does not check the signature.
SIGNED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20300101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}


class Client:
    def __init__(self, proxy: FaultProxy, bucket: str) -> None:
        self.host = urlsplit(proxy.url).netloc
        self.folder = "/" + bucket.removeprefix("s3://")

    @contextmanager
    def response(
        self, method: str, name: str, body: bytes | None = None, timeout: float = 60, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        with closing(http.client.HTTPConnection(self.host, timeout=timeout)) as connection:
            connection.request(method, f"{self.folder}/{name}", body, SIGNED | named)
            with connection.getresponse() as response:
                yield response

    def put(self, name: str, body: bytes, **headers: str) -> int:
        with self.response("PUT", name, body, **headers) as response:
            return response.status

    def get(self, name: str, timeout: float = 60) -> tuple[int, bytes]:
        with self.response("GET", name, timeout=timeout) as response:
            return response.status, response.read()


@pytest.fixture
def client(fault_proxy: FaultProxy, s3_server: S3Server) -> Client:
    return Client(fault_proxy, s3_server.bucket("proxied"))


def test_the_proxy_forwards_and_counts_requests(fault_proxy: FaultProxy, client: Client) -> None:
    assert client.put("a%20b", b"12", If_None_Match="*") == 200
    assert client.put("a%20b", b"12", If_None_Match="*") == 412
    with client.response("GET", "a%20b") as response:
        etag = response.headers["ETag"]
        assert response.read() == b"12"
    assert client.put("a%20b", b"34", If_Match=etag) == 200
    with client.response("HEAD", "a%20b") as response:
        assert response.headers["Content-Length"] == "2"
    with client.response("GET", "?list-type=2&prefix=a") as response:
        assert b"<Key>a b</Key>" in response.read()
    with client.response("DELETE", "a%20b") as response:
        assert response.status == 204

    kinds = {"PUT_NEW": 2, "GET": 1, "PUT_OVER": 1, "HEAD": 1, "LIST": 1, "DELETE": 1}
    assert fault_proxy.requests == kinds
    assert [request.status for request in fault_proxy.log[:3]] == [200, 412, 200]
    assert fault_proxy.log[0].path == f"{client.folder}/a b"


def test_the_proxy_does_not_change_the_host_header(fault_proxy: FaultProxy, client: Client) -> None:
    """Moto recognizes the bucket of a virtual host, which the proxy does not resolve."""
    bucket = client.folder[1:]
    client.put("a", b"1")
    connection = http.client.HTTPConnection(client.host)
    connection.request("GET", "/a", headers=SIGNED | {"Host": f"{bucket}.s3.amazonaws.com"})
    assert connection.getresponse().read() == b"1"
    connection.close()


def test_the_proxy_answers_by_rules_until_healed(fault_proxy: FaultProxy, client: Client) -> None:
    client.put("a", b"1")
    fault_proxy.fail(Answer(503), "GET", "/a$", on={2})
    fault_proxy.fail(Answer(409), kind="PUT_NEW")

    assert [client.get("a")[0] for _ in range(3)] == [200, 503, 200]
    assert client.put("a", b"2") == 200
    assert client.put("b", b"2", If_None_Match="*") == 409
    fault_proxy.heal()
    assert client.put("b", b"2", If_None_Match="*") == 200


def test_random_faults_of_a_seed_are_reproducible(fault_proxy: FaultProxy, client: Client) -> None:
    statuses = []
    for _ in range(2):
        fault_proxy.fail(Answer(500), probability=0.5, seed=3)
        statuses.append([client.get("a")[0] for _ in range(20)])
        fault_proxy.heal()

    assert statuses[0] == statuses[1]
    assert set(statuses[0]) == {404, 500}


@pytest.mark.parametrize(
    ("fault", "applied"),
    [(LostAnswer(), True), (CutRequest(), False), (StallUpload(0.1), False), (Stall(0.1), False)],
)
def test_only_a_lost_answer_leaves_the_request_applied(
    fault_proxy: FaultProxy, client: Client, fault: Fault, applied: bool
) -> None:
    client.put("a", b"1")
    fault_proxy.fail(fault, "PUT")

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        client.put("a", b"2" * 100_000)
    assert client.get("a")[1][:1] == (b"2" if applied else b"1")
    assert fault_proxy.log[-2].status == (200 if applied else None)


def test_an_applied_request_can_get_an_error(fault_proxy: FaultProxy, client: Client) -> None:
    fault_proxy.fail(AppliedThen(500), "PUT")

    assert client.put("a", b"1") == 500
    assert client.get("a") == (200, b"1")


def test_bodies_can_be_cut_stalled_slow_or_altered(fault_proxy: FaultProxy, client: Client) -> None:
    client.put("a", b"1234")
    fault_proxy.fail(CutAnswer(), "GET")
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        client.get("a")
    fault_proxy.heal()
    fault_proxy.fail(StallBody(), "GET")
    with client.response("GET", "a", timeout=0.2) as response:
        assert response.read(2) == b"12"
        with pytest.raises(TimeoutError):
            response.read(1)
    fault_proxy.heal()
    fault_proxy.fail(Slow(0.05, size=2), "GET")
    start = time.monotonic()
    assert client.get("a") == (200, b"1234")
    assert time.monotonic() - start >= 0.1
    fault_proxy.heal()
    fault_proxy.fail(Rewrite(lambda body: body[::-1] + b"!"), "GET")
    assert client.get("a") == (200, b"4321!")


@pytest.mark.parametrize("after", [False, True])
def test_held_requests_are_reordered(fault_proxy: FaultProxy, client: Client, after: bool) -> None:
    hold = Hold(after)
    fault_proxy.fail(hold, "PUT", on={1})
    first = threading.Thread(target=client.put, args=("a", b"first"))
    first.start()
    assert hold.arrived.wait(60)
    client.put("a", b"second")
    hold.release.set()
    first.join()

    assert client.get("a") == (200, b"second" if after else b"first")


def test_a_delayed_request_is_applied_later(fault_proxy: FaultProxy, client: Client) -> None:
    fault_proxy.fail(Delay(0.5), "PUT", on={1})
    first = threading.Thread(target=client.put, args=("a", b"first"))
    first.start()
    wait_until(lambda: fault_proxy.requests["PUT"])
    client.put("a", b"second")
    first.join()

    assert client.get("a") == (200, b"first")


def test_the_proxy_can_change_the_date_header(fault_proxy: FaultProxy, client: Client) -> None:
    fault_proxy.fail(Skew(-3600), "GET")

    with client.response("GET", "a") as response:
        [date] = response.headers.get_all("Date", [])
    assert parsedate_to_datetime(date).timestamp() == pytest.approx(time.time() - 3600, abs=60)

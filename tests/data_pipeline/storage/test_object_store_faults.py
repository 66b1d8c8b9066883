"""An object store whose server, network or credentials fail."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import obstore
import pytest
from support.files.guarded_server import GuardedServer
from support.storage.fault_proxy import (
    Answer,
    AppliedThen,
    CutAnswer,
    CutRequest,
    Fault,
    FaultProxy,
    LostAnswer,
    Rewrite,
    Slow,
    Stall,
    StallBody,
    StallUpload,
)
from support.storage.s3_server import KEY_ID, LISTED_AT_ONCE, SECRET_KEY, S3Server, only_moto

from data_pipeline.storage import object_store
from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_errors import (
    ObjectAccessError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectStore

CONNECT_SECONDS, STALL_SECONDS = 0.4, 0.4
# The documented limit, plus time for a busy machine.
LIMIT_SECONDS = 3 * CONNECT_SECONDS + STALL_SECONDS + 30


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CONNECT_TIMEOUT_SECONDS", CONNECT_SECONDS)
    monkeypatch.setattr(object_store, "STALL_TIMEOUT_SECONDS", STALL_SECONDS)


@pytest.fixture
def store(fault_proxy: FaultProxy, s3_server: S3Server) -> ObjectStore:
    return ObjectStore(s3_server.bucket("faulty"))


@pytest.mark.parametrize("fault", [Answer(500), Answer(503), CutAnswer()])
def test_transient_failures_of_reads_are_retried(
    store: ObjectStore, fault_proxy: FaultProxy, fault: Fault
) -> None:
    store.put("a", b"0123456789" * 10_000)
    fault_proxy.fail(fault, on={1})

    assert store.get("a", 100_000).data == b"0123456789" * 10_000
    assert fault_proxy.requests == {"PUT": 1, "GET": 2}


@pytest.mark.parametrize("fault", [Answer(503), LostAnswer(), CutRequest()])
def test_transient_failures_of_unconditional_writes_are_retried(
    store: ObjectStore, fault_proxy: FaultProxy, fault: Fault
) -> None:
    fault_proxy.fail(fault, on={1})

    store.put("a", b"1" * 300_000)
    assert store.get("a", 300_000).data == b"1" * 300_000


OPERATIONS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("a", 10),
    "get_range": lambda store: store.get_range("a", 0, 1),
    "put": lambda store: store.put("a", b"2"),
    "large put": lambda store: store.put("a", bytes(1_200_000)),
    "put_new": lambda store: store.put_new("b", b"2"),
    "put_over": lambda store: store.put_over("a", b"2", '"etag"'),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete(["a"]),
}


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *((operation, Stall()) for operation in OPERATIONS),
        ("large put", StallUpload()),
        ("get", Answer(500)),
        ("put_new", Answer(500)),
    ],
)
def test_every_operation_is_limited_in_time(
    store: ObjectStore,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    fault: Fault,
) -> None:
    monkeypatch.setattr(object_store, "MIN_WRITE_BYTES_PER_SECOND", 5e6)
    fault_proxy.fail(fault)
    start = time.monotonic()

    with pytest.raises(ObjectStoreError) as raised:
        OPERATIONS[operation](store)
    assert time.monotonic() - start < LIMIT_SECONDS
    assert type(raised.value) is ObjectStoreError
    assert str(store.url) in str(raised.value)


def test_a_server_that_stops_within_a_body_causes_an_error(
    store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    store.put("a", bytes(1_000_000))
    fault_proxy.fail(StallBody(), "GET")
    start = time.monotonic()

    with pytest.raises(ObjectStoreError, match=r"/a: .*timed out|timeout"):
        store.get("a", 2_000_000)
    with pytest.raises(ObjectStoreError):
        store.get_range("a", 0, 1_000_000)
    assert time.monotonic() - start < 2 * LIMIT_SECONDS


def test_a_server_that_sends_a_byte_at_a_time_causes_an_error(
    store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    """Each byte restarts the timeout of the next byte."""
    store.put("a", bytes(1000))
    fault_proxy.fail(Slow(0.1), "GET")
    start = time.monotonic()

    with pytest.raises(ObjectStoreError):
        store.get("a", 2000)
    assert time.monotonic() - start < LIMIT_SECONDS


def test_a_port_without_a_server_causes_an_error(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()

    with pytest.raises(ObjectStoreError, match=r"connection refused"):
        store.get("a", 1)
    assert time.monotonic() - start < LIMIT_SECONDS


def test_a_body_longer_than_stated_is_not_read(store: ObjectStore, fault_proxy: FaultProxy) -> None:
    store.put("a", b"1")
    fault_proxy.fail(Rewrite(lambda body: body * 5_000_000), "GET")

    with pytest.raises(TooManyBytesError):
        store.get("a", 1_000_000)
    with pytest.raises(ObjectStoreError):
        store.get_range("a", 0, 1)


def test_status_409_is_retried_and_is_not_a_conflict(
    store: ObjectStore, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_CONFLICT_DELAYS_SECONDS", (0.01, 0.01, 0.01))
    fault_proxy.fail(Answer(409), kind="PUT_NEW", on={1, 2})
    etag = store.put_new("a", b"1")
    fault_proxy.fail(Answer(409), kind="PUT_OVER", on={1, 2})
    etag = store.put_over("a", b"2", etag)
    assert store.get("a", 1) == (b"2", etag)

    fault_proxy.heal()
    fault_proxy.fail(Answer(409))
    for write in (
        lambda: store.put_new("b", b"1"),
        lambda: store.put_over("a", b"3", etag),
        lambda: store.put("a", b"3"),
    ):
        with pytest.raises(ObjectStoreError, match="409") as raised:
            write()
        assert type(raised.value) is ObjectStoreError
    fault_proxy.heal()
    assert store.get("a", 1) == (b"2", etag)


def test_a_conditional_write_may_have_been_applied_despite_its_error(
    store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    """The second attempt finds the object that the first attempt wrote."""
    fault_proxy.fail(AppliedThen(500), kind="PUT_NEW", on={1})
    with pytest.raises(ObjectConflictError):
        store.put_new("a", b"1")
    assert fault_proxy.requests["PUT_NEW"] == 2
    data, etag = store.get("a", 1)
    assert data == b"1"

    fault_proxy.fail(LostAnswer(), kind="PUT_OVER")
    with pytest.raises(ObjectStoreError):
        store.put_over("a", b"2", etag)
    assert store.get("a", 1).data == b"2"


@pytest.mark.parametrize(
    ("fault", "error", "remedy"),
    [
        (Answer(403), ObjectAccessError, "permissions"),
        (Answer(401), ObjectAccessError, "credentials"),
        (Answer(404, "NoSuchBucket"), ObjectAccessError, "create it"),
        (Answer(301), ObjectAccessError, "AWS_REGION"),
        (Answer(400, "AuthorizationHeaderMalformed"), ObjectAccessError, "AWS_REGION"),
        (Answer(404), ObjectMissingError, ""),
        (Answer(400, "Odd"), ObjectStoreError, "Odd"),
        (Answer(403, "RequestTimeTooSkewed"), ObjectAccessError, "Set the clock"),
        (Answer(403, "SignatureDoesNotMatch"), ObjectAccessError, "secret key"),
        (Answer(403, "QuotaExceeded"), ObjectAccessError, "quota"),
        (Answer(400, "ExpiredToken"), ObjectAccessError, "Renew the credentials"),
        (Answer(501, "NotImplemented"), ObjectStoreError, "does not implement"),
    ],
)
def test_errors_of_the_server_are_explained(
    store: ObjectStore,
    fault_proxy: FaultProxy,
    fault: Fault,
    error: type[ObjectStoreError],
    remedy: str,
) -> None:
    fault_proxy.fail(fault)

    with pytest.raises(error, match=f"s3://faulty-.*/a: .*{remedy}") as raised:
        store.get("a", 1)
    assert type(raised.value) is error


def test_secrets_in_answers_are_not_shown(store: ObjectStore, fault_proxy: FaultProxy) -> None:
    """If a signature is wrong, S3 answers with the key's id and the signed text."""
    quoted = f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><X>{SECRET_KEY}</X>"
    for answer in (
        Answer(403, "SignatureDoesNotMatch", quoted),
        Answer(500, text=quoted),
        Answer(400, f"Odd</Code><Message>{SECRET_KEY} {KEY_ID} \x1b]0;</Message><Code>"),
    ):
        fault_proxy.heal()
        fault_proxy.fail(answer)
        with pytest.raises(ObjectStoreError) as raised:
            store.get("a", 1)
        shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
        assert KEY_ID not in shown
        assert SECRET_KEY not in shown
        assert "\x1b" not in str(raised.value)


def test_a_redirect_target_gets_no_signature(store: ObjectStore, fault_proxy: FaultProxy) -> None:
    with GuardedServer({"moved": b"1"}) as other:
        moved = (("Location", f"{other.url}/moved"),)
        fault_proxy.fail(Answer(307, headers=moved))
        with suppress(ObjectStoreError):
            store.get("a", 1)
    assert other.shown == [None]


@only_moto
def test_renewed_credentials_are_used(
    store: ObjectStore,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A user's program may write new keys into the profile's file while a run uses it."""
    store.put("a", b"1")
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id=OLD\naws_secret_access_key=B\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    store = ObjectStore(str(store.url))
    assert store.get("a", 1).data == b"1"

    keys.write_text("[default]\naws_access_key_id=NEW\naws_secret_access_key=B\n")
    fault_proxy.fail(Answer(403, "ExpiredToken"), on={1})
    assert store.get("a", 1).data == b"1"

    fault_proxy.heal()
    fault_proxy.fail(Answer(403, "ExpiredToken"), on={1})
    with pytest.raises(ObjectAccessError, match="ExpiredToken"):
        store.get("a", 1)


@only_moto
def test_a_listing_whose_second_page_fails_is_an_error(
    store: ObjectStore, s3_server: S3Server, fault_proxy: FaultProxy
) -> None:
    for number in range(LISTED_AT_ONCE + 1):  # for two pages
        obstore.put(s3_server.client(store.url), f"{number}", b"")
    fault_proxy.fail(Answer(403), kind="LIST", on={2})

    with pytest.raises(ObjectAccessError):
        list(store.list())


def test_missing_credentials_are_reported_with_the_remedy(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ObjectAccessError, match="AWS_SECRET_ACCESS_KEY without"):
        store.get("a", 1)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ObjectAccessError, match=r"faulty-.*/a: .*AWS_PROFILE"):
        store.get("a", 1)

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")  # like on a machine without a role
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ObjectAccessError, match=r"machine's role.*AWS_PROFILE"):
        store.get("a", 1)


def test_a_proxy_in_the_way_is_reported(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://objects.invalid:9")
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with pytest.raises(ObjectStoreError):
        store.get("a", 10)

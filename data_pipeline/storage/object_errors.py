"""Errors of object stores, from the texts of obstore's errors."""

import re

from data_pipeline.storage.object_access import MISSING, ObjectAccess
from foundation.location import without_credentials
from foundation.proxies import proxy_hint
from foundation.untrusted_text import visible_line

_MAX_REASON_CHARACTERS = 300
_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
# A request for a machine's role; its URL is hidden if it has a token.
_ROLE_REQUEST = re.compile(
    r"Error performing \w+ (?:REDACTED|http://169\.254\.1(?:69\.254|70\.2)|http://metadata\.google\.|"
    r"\S+/(?:latest/(?:api/token|meta-data)|computeMetadata|metadata/identity)\b)"
)
# Reason why there was no response: the operating system's text, or a kind, such as Timeout.
_CAUSE = re.compile(r'\bmessage: "([^"\n]{1,100})"')
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
# Default endpoints; the host of an endpoint determines whether a proxy is used.
_ENDPOINTS = {
    "s3": "https://s3.amazonaws.com",
    "gs": "https://storage.googleapis.com",
    "az": "https://blob.core.windows.net",
}
_RENEW = "Renew the credentials, which are valid for a limited time"
_RAISE_QUOTA = "Free some space, or ask for a higher quota"
_LATER = "The store limits the rate of requests: retry later"
# Remedies by the code of a response.
_REMEDIES = {
    "RequestTimeTooSkewed": "Set the clock of this machine, for example with chrony",
    "ExpiredToken": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "InvalidToken": "Correct or unset the session token; it is valid only with its own keys",
    "InvalidAccessKeyId": "Correct the access key",
    "SignatureDoesNotMatch": "Correct the secret key",
    "AccessDenied": "Check the credentials and their permissions: runs are read, listed, written "
    "and deleted",
    "InvalidObjectState": "The object is archived: restore it first",
    "QuotaExceeded": _RAISE_QUOTA,
    "QuotaExceededException": _RAISE_QUOTA,
    "XMinioStorageFull": _RAISE_QUOTA,
    "SlowDown": _LATER,
    "ServerBusy": _LATER,
    "RequestLimitExceeded": _LATER,
    "NotImplemented": "This server does not implement the request, such as a conditional write",
}
_WRONG_REGION = "Received redirect without LOCATION"
_MISSING_BUCKETS = ("NoSuchBucket", "ContainerNotFound")


class ObjectStoreError(OSError):
    """A request to an object store has failed."""


class ObjectMissingError(ObjectStoreError, FileNotFoundError):
    """There is no such object."""


class ObjectConflictError(ObjectStoreError):
    """A conditional write was refused: the object exists, or has another etag."""


class ObjectAccessError(ObjectStoreError):
    """Credentials are missing or refused, or there is no such bucket."""


class BusyError(ObjectStoreError):
    """The server has answered 409 and may accept the same request later."""


def failure_of(text: str, shown: str, scheme: str, access: ObjectAccess) -> ObjectStoreError:
    """Return the error for the text of one of obstore's errors.

    The text has the response's body, in which servers quote keys and signatures, so only its code
    and message are shown.

    Args:
        shown: the object's location for the message.
        access: the credentials of the request, which the message must not contain.
    """
    text, _, details = text.partition("\n\nDebug source")
    status_match, code_match, message = (p.search(text) for p in (_STATUS, _CODE, _MESSAGE))
    status = int(status_match[1]) if status_match else None
    code = code_match[1] if code_match else ""
    if status_match:
        reason = f"{status} {status_match[2].strip()}".strip()
        reason += f", {code}" if code else ""
        reason += f" ({message[1].strip()})" if message else ""
    else:
        reason = text.rpartition(" - ")[2].partition("\n")[0]
        if cause := _CAUSE.search(details) or _KIND.search(details):
            reason += f" ({cause[1].lower()})"
        endpoint = access.config.get("endpoint") or access.config.get("base_url")
        reason += proxy_hint(str(endpoint or _ENDPOINTS[scheme]))
    reason = without_credentials(reason)
    for secret in access.secrets:
        reason = reason.replace(secret, "…")
    reason = f"{shown}: {visible_line(reason[:_MAX_REASON_CHARACTERS])}"
    if _ROLE_REQUEST.search(text):
        return ObjectAccessError(
            f"{shown}: there are no credentials, and this machine's role cannot be used. "
            f"{MISSING[scheme]}"
        )
    if code in _MISSING_BUCKETS:
        return ObjectAccessError(f"{reason}. Correct the name of the bucket, or create it")
    if _WRONG_REGION in text or code == "AuthorizationHeaderMalformed":
        return ObjectAccessError(
            f"{reason}. The bucket is in another region: set AWS_REGION to its region"
        )
    if remedy := _REMEDIES.get(code):
        is_access = status in (400, 401, 403)
        return (ObjectAccessError if is_access else ObjectStoreError)(f"{reason}. {remedy}")
    if status in (401, 403):
        return ObjectAccessError(f"{reason}. Check the credentials and their permissions")
    if status == 412 or code == "BlobAlreadyExists":
        return ObjectConflictError(reason)
    if text.startswith("Request precondition failure") and status == 404:  # no such object
        return ObjectConflictError(reason)
    if status == 404:
        return ObjectMissingError(reason)
    return BusyError(reason) if status == 409 else ObjectStoreError(reason)

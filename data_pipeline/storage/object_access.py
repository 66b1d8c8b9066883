"""Options of object store clients: endpoint, region and credentials, from the usual places.

    access_for("s3", os.environ) ──environment──▶ keys, web identity or container role: as obstore
                                 ──profile──▶ ~/.aws/credentials, ~/.aws/config: read here
                                 ──otherwise──▶ the machine's role, which obstore asks for

obstore reads the environment and asks for a machine's role, but reads no profiles. This module
executes no program: a profile with `credential_process` is refused.
"""

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from foundation.location import credential_in, without_credentials
from foundation.untrusted_text import visible_line

# Settings of a profile that are not supported, because they need a program, a browser or requests.
_UNSUPPORTED = ("role_arn", "credential_process", "sso_session", "sso_start_url")
_AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")  # of variables obstore reads
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_VARIABLES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "SAS")
MISSING = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run on a machine "
    "with a role. For a public bucket, set AWS_SKIP_SIGNATURE=true",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to the path of a service account's key, or run on a "
    "machine with a service account",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run on a machine with "
    "a managed identity",
}


class AccessError(Exception):
    """The environment or a profile cannot be used; the text has the remedy, and no secret."""


@dataclass(frozen=True)
class ObjectAccess:
    """Options for obstore that differ from its defaults.

    Attributes:
        config: options of the store, which may be secret.
        client: options of its HTTP client.
        secrets: texts that must not be shown.
    """

    config: dict[str, str | bool] = field(repr=False)
    client: dict[str, bool | bytes] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)


def access_for(scheme: str, environment: Mapping[str, str]) -> ObjectAccess:
    """Return the options for a scheme.

    Raises:
        AccessError: a profile or file cannot be used, or there are no credentials.
    """
    _require_plain_values(environment)
    config: dict[str, str | bool]
    if scheme == "s3":
        aws = _aws(environment)
        config = {"conditional_put": "etag", **aws}
        address = aws.get("endpoint", "")
        origin = _first_set(environment, *_AWS_ENDPOINTS) or "endpoint_url of the profile"
    elif scheme == "gs":
        origin = "STORAGE_EMULATOR_HOST"
        address = environment.get(origin, "")
        config = {"base_url": address, "bearer_token": "emulator"} if address else {}
    else:
        origin = _first_set(environment, "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT") or ""
        address = environment.get(origin, "")
        config = {"endpoint": address} if address else {}
    if address:
        _require_endpoint(address, origin)
    client: dict[str, bool | bytes] = {"allow_http": address.lower().startswith("http://")}
    if scheme == "s3" and (bundle := environment.get("AWS_CA_BUNDLE")):
        try:
            client["root_certificate"] = Path(bundle).expanduser().read_bytes()
        except OSError as error:
            raise AccessError(
                f"{bundle}, the file of AWS_CA_BUNDLE, cannot be read ({error.strerror}). Correct "
                "the path, or unset AWS_CA_BUNDLE"
            ) from None
    secrets = {
        value
        for name, value in environment.items()
        if any(word in name.upper() for word in _SECRET_VARIABLES)
    } | {str(config[key]) for key in _KEYS if key in config}
    return ObjectAccess(config, client, frozenset(text for text in secrets if len(text) >= 8))


def _require_plain_values(environment: Mapping[str, str]) -> None:
    """Check the variables that obstore reads: it panics if a value does not fit into a request.

    Raises:
        AccessError: a value has a control character, such as the line end of a secret made with
            `echo`, begins or ends with a blank, or is a URL that contains a blank.
    """
    for name, value in environment.items():
        if name.upper().startswith(_PREFIXES):
            _require_plain(value, name)


def _require_plain(value: str, origin: str) -> None:
    is_url = origin.upper().endswith(("URI", "URL"))
    if value != value.strip() or _CONTROL.search(value) or (is_url and re.search(r"\s", value)):
        raise AccessError(
            f"{origin} has a blank or a line end that does not belong there. Remove it. Secrets of "
            "Kubernetes get a line end if they are made with `echo` instead of `printf`"
        )


def _require_endpoint(address: str, origin: str) -> None:
    """Check the URL of an endpoint.

    Args:
        origin: the variable or setting that contains the address.

    Raises:
        AccessError: the address is not the URL of a server, or it contains a credential.
    """
    if found := credential_in(address):
        raise AccessError(
            f"The endpoint {without_credentials(address)} carries {found}. Remove it; keys have "
            "separate variables"
        )
    try:
        url = urlsplit(address)
        is_server = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_server = False
    if not is_server or re.search(r"[\s?#]", address):
        raise AccessError(
            f"{origin} is {visible_line(repr(address))}, expected the URL of a server, "
            "http://HOST:PORT or https://HOST:PORT. Correct it"
        )


_KEYS = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}


def _aws(environment: Mapping[str, str]) -> dict[str, str]:
    name, profile = _profile(environment)
    region = _first(environment, "AWS_REGION", "AWS_DEFAULT_REGION")
    endpoint = _first(environment, *_AWS_ENDPOINTS)
    config = {
        "region": region or profile.get("region", ""),
        "endpoint": (endpoint or profile.get("endpoint_url", "")).rstrip("/"),
    }
    if not _uses_environment(environment):
        unsupported = next((key for key in _UNSUPPORTED if profile.get(key)), None)
        if unsupported:
            raise AccessError(
                f"The profile {name!r} has {unsupported}, which transloom does not support. Run "
                f'`eval "$(aws configure export-credentials --profile {name} --format env)"` in '
                "the shell that starts it, or use a profile with keys"
            )
        keys = {ours: profile[theirs] for ours, theirs in _KEYS.items() if profile.get(theirs)}
        for ours, value in keys.items():
            _require_plain(value, f"{_KEYS[ours]} of the profile {name!r}")
        if "access_key_id" in keys and "secret_access_key" in keys:
            config |= keys
        elif environment.get("AWS_PROFILE"):
            raise AccessError(
                f"The profile {name!r} of AWS_PROFILE has no aws_access_key_id and "
                f"aws_secret_access_key. {MISSING['s3']}"
            )
        elif environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise AccessError(f"There are no credentials. {MISSING['s3']}")
    return {key: value for key, value in config.items() if value}


def _first_set(environment: Mapping[str, str], *names: str) -> str | None:
    """Return the name of the first variable that is set and not empty, or None."""
    return next((name for name in names if environment.get(name)), None)


def _first(environment: Mapping[str, str], *names: str) -> str:
    """Return the first of the variables that is set and not empty, or ""."""
    return environment.get(_first_set(environment, *names) or "", "")


def _uses_environment(environment: Mapping[str, str]) -> bool:
    """Return whether obstore uses credentials of the environment, in preference to a profile."""
    pair = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    named = [name for name in pair if environment.get(name)]
    if len(named) == 1:
        [missing] = set(pair) - set(named)
        raise AccessError(f"The environment has {named[0]} without {missing}. Set or unset both")
    if named:
        return True
    if environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1", "yes", "on", "y"):
        return True
    roles = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    return not environment.get("AWS_PROFILE") and any(environment.get(role) for role in roles)


def _profile(environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the profile's name and settings; the credentials file overrides the config file.

    Raises:
        AccessError: a file cannot be read, or the profile that AWS_PROFILE names does not exist.
    """
    named = environment.get("AWS_PROFILE")
    name = named or "default"
    found: dict[str, str] = {}
    paths = []
    for variable, default, sections in (
        ("AWS_CONFIG_FILE", "~/.aws/config", (name, f"profile {name}")),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", (name,)),
    ):
        path = Path(environment.get(variable) or default).expanduser()
        paths.append(str(path))
        parser = _read(path)
        for section in sections:
            # Only the default profile of the config file has no prefix.
            if parser.has_section(section) and (variable != "AWS_CONFIG_FILE" or _fits(section)):
                found |= parser[section]
    if named and not found:
        raise AccessError(
            f"There is no profile {name!r}, which AWS_PROFILE names, in {' or '.join(paths)}. "
            "Correct AWS_PROFILE, or add the profile"
        )
    return name, found


def _fits(section: str) -> bool:
    return section == "default" or section.startswith("profile ")


def _read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise AccessError(f"{path} cannot be read ({error.strerror}). Correct its mode") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        # The error's text has a line of the file, which may be a key.
        line = getattr(error, "lineno", None)
        where = f"line {line} of it is invalid" if line else "it is not a file of AWS profiles"
        raise AccessError(f"{path} cannot be read: {where}. Correct it") from None
    return parser

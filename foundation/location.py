"""Locations: paths, URLs or built-in corpora, which never carry a credential.

Recipes are saved in run folders, checkpoints, W&B and manifests, and messages quote locations. So a
`Location` cannot contain a user name, a password or a signature. Credentials belong in the
environment, or in a file that the environment names; see docs/how-to/s3.md.

Texts from other sources may quote credentials, for example the error of a library, or of a server
that redirects to a signed link. `without_credentials` cleans such texts before they are shown or
stored.
"""

import re
from typing import Any, Self
from urllib.parse import unquote, unquote_plus

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from foundation.errors import LocationError

REMEDY = (
    "Remove it, because recipes are saved in runs, checkpoints, W&B and manifests. A password for "
    "http and https belongs in ~/.netrc, or in the file that NETRC names; keys of s3 and gs belong "
    "in the environment, as AWS_… and GOOGLE_APPLICATION_CREDENTIALS; the URL of a webhook belongs "
    "in a file that the command of tracking.notify reads. Download a file behind a signed link "
    "into a folder, and name it by data.mirror=FOLDER or by its path"
)

# Beginning of a URL: "://" after any scheme, or one of these schemes with any number of slashes.
_BEGIN = re.compile(r"(://|\b(?:https?|s3|gs|ftp|file):[\\/]*)", re.IGNORECASE)
_URL = re.compile(_BEGIN.pattern + r"(\S*)", re.IGNORECASE)
# A user name with its password. The password may contain a slash, unless the text between the colon
# and the slash could be a port.
_USERINFO = re.compile(r"(?:[^\s/?#@\[]*:(?!\d+(?:[/\s]|$))[^\s@]*|[^\s/?#]*)@")
_QUERY = re.compile(r"(?:[?#]|;(?=[\w.-]+=)).*", re.DOTALL)
_PUNCTUATION = "\"'`)]}>.,;:!"
_HEADER = re.compile(r"(authorization['\"]?\s?[:=,]\s?['\"]?)(?:\w+ )?[^\s'\",)]+", re.IGNORECASE)
# Webhooks of well-known services, whose path is the secret. Only group 1 may be shown.
_WEBHOOK = re.compile(
    r"((?:\bhooks\.slack(?:-gov)?\.com|\bhooks\.zapier\.com|\.webhook\.office\.com|"
    r"\bdiscord(?:app)?\.com/api/webhooks|\bapi\.telegram\.org)(?::\d{1,5})?/)(?!…)"
    r"[^\s\"'`)\]}>]+",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{\w+\})", re.ASCII)
_REMOTE = re.compile(r"(?!file:)[a-z0-9+.:-]+://[^/?#]*/*([^?#]*)", re.IGNORECASE)  # group 1: path

# The words of a query parameter's name, such as X-Amz-Signature or AWSAccessKeyId, and the words
# that indicate a credential.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = re.compile(
    "(?:access|api|auth|private|secret|security|session|shared)*(?:token|key)(?:id)?|"
    "auth(?:orization)?|bearer|credentials?|hmac|jwt|(?:user)?pass(?:wd|word|phrase)?|"
    "policy|pwd|sas|secret|session|sid|sig|sign(?:ature|ed)?|ticket",
    re.IGNORECASE,
)
# Words of `_SECRET` that may also be harmless, and the values that show this, as in lang_key=de or
# session=2012.
_AMBIGUOUS = re.compile("key|auth|policy|session|sid|ticket", re.IGNORECASE)
_PLAIN = re.compile(r"[a-z]{1,16}|\d{1,12}")
# Names of checksums and versions, whose values look like keys.
_PIN = re.compile(
    "(?:md5|sha1|sha256|sha512|checksum|commit|etag|generation|version|versionid|rev)"
)
_FILE_NAME = re.compile(r"[\w .-]+\.[a-z][a-z0-9]{1,7}")
_OPAQUE = re.compile("[A-Za-z0-9]{20,}")
_HASH = re.compile("(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})")  # checksums, not secrets


class Location(str):
    """A path, a URL or a built-in corpus, which carries no credential.

    ::

        Location("https://host/corpus.gz")              # the text, a str
        Location("https://user:password@host/corpus")   # LocationError, which shows neither

    Raises:
        LocationError: the location carries a credential, names a variable such as $HOME, or leads
            out of the folder that it names.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if found := credential_in(text):
            raise LocationError(f"{_shown(text)} carries {found}. {REMEDY}")
        if variable := _VARIABLE.search(text):
            raise LocationError(
                f"{_shown(text)} contains {variable[0]}, but recipes expand no variables. Write "
                'the path, or use an override, in which the shell expands variables: KEY="$NAME/…"'
            )
        if (remote := _REMOTE.match(text)) and (part := path_escape(remote[1])):
            raise LocationError(
                f"{without_credentials(text)} contains {part!r}, which leads out of the folder "
                f"that the address names. Remove {part!r} from the address"
            )
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def credential_in(text: str) -> str | None:
    """Return the kind of credential that a URL carries, without its value, or None."""
    if _WEBHOOK.search(text):
        return "the secret path of a webhook"
    if not _BEGIN.search(text):
        return None
    if any(map(_USERINFO.match, _BEGIN.split(_one_word(text))[2::2])):
        return "a user name or password"
    for part in re.split("[?#&;]", text)[1:]:
        name, _, value = unquote_plus(part).partition("=")  # decoded in the same way as by servers
        secret = next(filter(_SECRET.fullmatch, _WORD.findall(name)), None)
        if value and secret and not (_AMBIGUOUS.fullmatch(secret) and _PLAIN.fullmatch(value)):
            return f"a credential in its query ({name})"
        if value and (_PIN.fullmatch(name.lower()) or _FILE_NAME.fullmatch(value)):
            continue
        if any(map(_is_opaque, _OPAQUE.findall(value or name))):
            return f"what looks like a credential in its query ({name if value else 'no name'})"
    return None


def path_escape(name: str) -> str | None:
    """Return the part of a relative name that leads out of its parent folder, or None.

    Percent-encoded dots and slashes count, because servers and `unquote` decode them.
    """
    for form in (name, unquote(name)):
        if form.startswith("/"):
            return name
        for segment in re.split(r"[/\\]", form):
            if segment == "..":
                return ".." if form is name else _encoded_part(name)
        if "\\" in form or "\0" in form:
            return "\\" if "\\" in form else "\0"
    return None


def without_credentials(text: str) -> str:
    """Remove authorization headers, and credentials and queries of URLs, from a text."""
    return _HEADER.sub(r"\1…", _URL.sub(_cleaned, _WEBHOOK.sub(r"\1…", text)))


def check_all(values: Any, name: str = "") -> None:
    """Check every string in a YAML value, under any key, and the keys themselves.

    Raises:
        LocationError: a string carries a credential; the message gives its dotted key.
    """
    left, seen = [(name, values)], set()
    while left:
        name, value = left.pop()
        if isinstance(value, str):
            if found := credential_in(value):
                raise LocationError(f"{name}: {_shown(value)} carries {found}. {REMEDY}")
        elif isinstance(value, (dict, list)) and id(value) not in seen:  # aliases share values
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            left += [(f"{name}.{key}".lstrip("."), item) for key, item in items]
            left += [(f"a key of {name or 'the recipe'}", str(key)) for key, _ in items]


def strip_credentials(value: Any) -> Any:
    """Return a JSON value with credentials removed from its locations.

    Recipes that earlier versions saved in runs, checkpoints and manifests may contain credentials.
    """
    if isinstance(value, str):
        return _shown(value).removesuffix("?…") if credential_in(value) else value
    if isinstance(value, dict):
        return {key: strip_credentials(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strip_credentials(item) for item in value]
    return value


def _shown(location: str) -> str:
    """Return scheme, host and path of a location, without the credential that it carries."""
    before, *begin_and_rest = _BEGIN.split(_WEBHOOK.sub(r"\1…", _one_word(location)), maxsplit=1)
    if not begin_and_rest:
        return before
    begin, rest = begin_and_rest
    return before + begin + re.sub("[?#;].*", "?…", rest.rpartition("@")[2])


def _cleaned(url: re.Match[str]) -> str:
    parts = _BEGIN.split(url[0])  # text before, then begin and rest of each nested URL
    parts[2::2] = [_without_user(part) for part in parts[2::2]]
    return _QUERY.sub(_without_query, "".join(parts))


def _without_user(rest: str) -> str:
    while user := _USERINFO.match(rest):  # a password may contain "@", too
        rest = rest[user.end() :]
    return rest


def _without_query(query: re.Match[str]) -> str:
    text = query[0]
    return text[0] + "…" + text[len(text.rstrip(_PUNCTUATION)) :]


def _is_opaque(run: str) -> bool:
    """Return True if letters and digits are mixed, as in keys and signatures."""
    return not (run.isalpha() or run.isdecimal() or _HASH.fullmatch(run))


def _one_word(location: str) -> str:
    """Return a location with white space encoded, so that all of it is one URL."""
    return re.sub(r"\s", "%20", location.strip())


def _encoded_part(name: str) -> str:
    found = re.search(r"(?:%2e|\.){2}(?:%2f|%5c)?|(?:%2f|%5c)(?:%2e|\.){2}", name, re.IGNORECASE)
    return found[0] if found else name

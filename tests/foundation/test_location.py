"""Locations with credentials are refused, and credentials are removed from shown texts."""

import json
import pickle

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from foundation.errors import LocationError
from foundation.location import (
    Location,
    check_all,
    path_escape,
    strip_credentials,
    without_credentials,
)

WITH_USERINFO = [
    "https://user:s3cr3tCANARY@host/x",
    "https://s3cr3tCANARY@host/x",
    "https://s3cr3tCANARY:x-oauth-basic@host/x",
    "https://:s3cr3tCANARY@host",
    "https://user:s3cr3t%43ANARY@host/x",
    "https://user:a/s3cr3tCANARY@host/x",
    "https://user:a?s3cr3tCANARY@host/x",
    "https://user:a#s3cr3tCANARY@host/x",
    "https://user:a s3cr3tCANARY@host/x",
    "https://user:s3cr3tCANARY@@host/x",
    "https://user:a://s3cr3tCANARY@host/x",
    "https://host:80@s3cr3tCANARY@host/x",
    "https://user:s3cr3tCANARY@[::1]:80/x",
    "HTTPS://user:s3cr3tCANARY@host/x",
    "https:/user:s3cr3tCANARY@host/x",
    "https:user:s3cr3tCANARY@host/x",
    "https:\\\\user:s3cr3tCANARY@host/x",
    " https://user:s3cr3tCANARY@host/x",
    "simplecache::https://user:s3cr3tCANARY@host/x",
    "s3://AKIAEXAMPLE:s3cr3tCANARY@bucket/x",
    "ftp://user:s3cr3tCANARY@host/x",
    "file://user:s3cr3tCANARY@host/x",
]
WITH_QUERY = [
    f"https://host/x?{query}"
    for query in (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=s3cr3tCANARY",
        "X-Amz-Security-Token=s3cr3tCANARY",
        "X-Goog-Signature=s3cr3tCANARY",
        "AWSAccessKeyId=s3cr3tCANARY&Expires=1",
        "Expires=1&Signature=s3cr3tCANARY",
        "sv=2024-11-04&sig=s3cr3tCANARY",
        "token=s3cr3tCANARY",
        "raw=1&access_token=s3cr3tCANARY",
        "api_key=s3cr3tCANARY",
        "apikey=s3cr3tCANARY",
        "PASSWORD=s3cr3tCANARY",
        "rlkey=a9b8c7d6e5f4a9b8c7d6CANARY",
        "a9b8c7d6e5f4a9b8c7d6CANARY",
        "%73ig=s3cr3tCANARY",
        "sv=2024&si%67=s3cr3tCANARY",
        "x%2damz%2dsignature=s3cr3tCANARY",
        "sig%3Ds3cr3tCANARY",
        "secretkey=s3cr3tCANARY",
        "PRIVATETOKEN=s3cr3tCANARY",
        "passphrase=s3cr3tCANARY",
        "key=s3cr3tCANARY",
    )
] + ["https://host/x#access_token=s3cr3tCANARY", "https://host/x;token=s3cr3tCANARY"]
WEBHOOKS = [
    "https://hooks.slack.com/services/T0CANARY/B0/s3cr3tCANARY",
    "hooks.slack.com/services/T0/B0/s3cr3tCANARY",
    "HTTPS://HOOKS.SLACK.COM:443/workflows/s3cr3tCANARY",
    "https://ptb.discord.com/api/webhooks/1/s3cr3tCANARY",
    "https://team.webhook.office.com/webhookb2/s3cr3tCANARY",
    "https://api.telegram.org/bots3cr3tCANARY/sendMessage",
    "https://hooks.zapier.com/hooks/catch/1/s3cr3tCANARY/",
]
WITHOUT = [
    "https://slack.com/help",
    "https://hooks.slack.com/…",
    "https://discord.com/developers",
    "corpus.txt",
    "~/corpora/a@b.txt?token=1",
    "/data/what?key=2",
    "builtin:phrasebook/train.en",
    "auto",
    "host:6379",
    "https://host/x",
    "https://host:8443/@scope/corpus@v2.gz",
    "https://[::1]:8443/a@b",
    "https://host/x?raw=1&download=true",
    "https://host/x?file=train-00000-of-00017.txt",
    f"https://host/x?at={40 * 'a'}",
    f"https://host/x?sha256={32 * 'a1'}&md5={16 * 'b2'}",
    "s3://bucket/x?versionId=L4kqtJlcpXroDTDmpUMLUo3HVBH40NrZ",
    "https://host/x?file=Corpus2024EuroparlVersion7German.txt",
    "https://host/x?key=europarl&lang_key=de&session=2012&policy=open",
    "https://host/part-{000..017}.tar",
    "https://host/a b/größe",
    "s3://bucket/key@version",
    "gs://bucket/a..b",
    "file:///a/../b",
    "part-{000..017}.jsonl",
]


@pytest.mark.parametrize("text", WITH_USERINFO + WITH_QUERY)
def test_a_location_with_a_credential_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(LocationError, match=r"carries .*\. Remove it.*NETRC.*data\.mirror") as e:
        Location(text)
    assert "CANARY" not in str(e.value).upper().replace("%43", "C")
    assert any(host in str(e.value) for host in ("host", "bucket", "[::1]:80"))


@pytest.mark.parametrize("text", WEBHOOKS)
def test_the_path_of_a_webhook_is_a_credential(text: str) -> None:
    with pytest.raises(LocationError, match=r"webhook.*tracking\.notify") as caught:
        Location(text)
    with pytest.raises(LocationError) as caught_in_a_recipe:
        check_all({"tracking": {"notify": {"targets": [{"url": text}]}}})
    said = without_credentials(f"cannot POST to <{text}>, ({text}): and {text!r}.")
    for shown in (str(caught.value), str(caught_in_a_recipe.value), said, strip_credentials(text)):
        assert "CANARY" not in shown.replace("SLACK", "")
    assert without_credentials(said) == said


@pytest.mark.parametrize("text", WITHOUT)
def test_a_location_without_a_credential_equals_its_text(text: str) -> None:
    location = Location(text)
    assert location == text
    assert repr(location) == repr(text)
    assert json.dumps([location]) == json.dumps([text])
    copy = pickle.loads(pickle.dumps(location))  # noqa: S301 - made in this line
    assert (type(copy), copy) == (Location, text)
    assert strip_credentials(text) == text


class Section(BaseModel):
    place: Location
    more: tuple[Location, ...] = ()


@pytest.mark.parametrize("text", ["$HOME/a", "${SCRATCH}/a", "s3://$BUCKET/a", "a/$USER.txt"])
def test_a_location_with_an_environment_variable_is_refused(text: str) -> None:
    with pytest.raises(LocationError, match=r"contains \$.*recipes expand no variables.*override"):
        Location(text)
    for plain in ("price$.txt", "5$", "part-{0..3}.tar"):
        assert Location(plain) == plain


def test_a_location_field_is_validated_and_dumped_as_text() -> None:
    section = Section.model_validate({"place": "https://host/x", "more": ["a"]})
    assert type(section.place) is type(section.more[0]) is Location
    values = section.model_dump(mode="json")
    assert yaml.safe_load(yaml.safe_dump(values)) == {"place": "https://host/x", "more": ["a"]}
    with pytest.raises(ValidationError) as caught:
        Section.model_validate({"place": "a", "more": ["b", "https://user:s3cr3tCANARY@host/x"]})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("more", 1)
    assert "CANARY" not in problem["msg"]


@pytest.mark.parametrize("part", ["..%2f", "..%2F", "%2e%2e/", "%2E%2e%2f", "../", "..%5c", "..\\"])
@pytest.mark.parametrize(
    "form", ["https://host/{}etc/passwd", "s3://bucket/a/{}b", "http://h/a/b{}"]
)
def test_a_url_that_leaves_its_folder_is_refused(form: str, part: str) -> None:
    address = form.replace("b{}", "b/{}").format(part)
    with pytest.raises(LocationError, match="leads out of the folder"):
        Location(address)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../a",
        "a/../../b",
        "..%2fa",
        "%2e%2e/a",
        "%2e%2e%2fa",
        "a%2f..%2f..",
        "..\\a",
        "a\\b",
        "%5c..%5c",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "//host/a",
        "\\\\host\\a",
        "a\0b",
    ],
)
def test_path_escape_finds_names_that_leave_the_folder(name: str) -> None:
    assert path_escape(name)


@pytest.mark.parametrize("name", ["a", "shards/train-00000.tar", "a..b", "größe.txt", "a%20b", "…"])
def test_path_escape_accepts_names_within_the_folder(name: str) -> None:
    assert path_escape(name) is None


@pytest.mark.parametrize("text", WITH_USERINFO[:5] + WITH_QUERY)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "404, message='Not Found', url='{}'",
        "InvalidURL: <{}>, after ({}).",
        '{{"to":"https://host/a","from":"{}"}}',
        "FileNotFoundError: {}\n  File x, in http://host:80/x",
    ],
)
def test_credentials_are_removed_from_error_messages_of_libraries(form: str, text: str) -> None:
    said = without_credentials(form.format(text, text))
    assert "CANARY" not in said.replace("%43", "C")
    assert "://host" in said.replace("https://host/a", "")


def test_removing_credentials_keeps_the_rest_of_a_text() -> None:
    for text in (
        "Cannot connect to host 127.0.0.1:80 [Connect call failed ('127.0.0.1', 80)]",
        "see https://docs.host/page.html, or (http://host:8080/a@b): both. What? a@b; c=d #1",
        "expected 20,000 bytes in http://127.0.0.1:4711, found 19,999",
        "e" * 10,
    ):
        assert without_credentials(text) == text
    headers = "headers={'Host': 'h', 'Authorization': 'Basic Q0FOQVJZ', 'Accept': '*/*'}"
    assert without_credentials(headers) == headers.replace("Basic Q0FOQVJZ", "…")
    asked = "(https://host/x?sig=CANARY), then https://host/y?raw=1."
    assert without_credentials(asked) == "(https://host/x?…), then https://host/y?…."


@pytest.mark.matrix
@pytest.mark.parametrize(
    "part", ["://", "http://a", "://a:", "?a", "@", "authorization: ", "a:b@", "hooks.slack.com"]
)
def test_hostile_texts_are_cleaned_in_linear_time(part: str) -> None:
    """With a pattern that backtracks, this test would need quadratic time and not end."""
    without_credentials(part * (2**18 // len(part)))
    without_credentials("http://" + part * (2**18 // len(part)))


@pytest.mark.parametrize("text", WITH_USERINFO[:5] + WITH_QUERY)
def test_credentials_are_found_in_all_values_and_keys_of_a_recipe(text: str) -> None:
    for values, name in (
        ({"data": {"unknown": [1, text]}}, "data.unknown.1"),
        ({"trainer": {"options": {"a": {"b": text}}}}, "trainer.options.a.b"),
        ({"tracking": {text: 1}}, "a key of tracking"),
        ([text], "0"),
    ):
        with pytest.raises(LocationError, match=f"^{name}: ") as caught:
            check_all(values)
        assert "CANARY" not in str(caught.value).replace("%43", "C")


def test_shared_and_cyclic_values_are_checked_only_once() -> None:
    levels: list[object] = ["https://host/x"]
    for _ in range(100):
        levels = [levels, levels]
    check_all(levels)
    circle: dict[str, object] = {}
    circle["self"] = circle
    check_all(circle)


def test_credentials_are_removed_from_stored_urls() -> None:
    kept = {"files": ["https://u:p@host/x?sig=1", "https://host/y?raw=1", "a@b"], "n": 1, "m": None}
    assert strip_credentials(kept) == {
        "files": ["https://host/x", "https://host/y?raw=1", "a@b"],
        "n": 1,
        "m": None,
    }

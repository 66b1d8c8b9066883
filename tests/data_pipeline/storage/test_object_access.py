"""Sources of endpoint, region and keys for clients of object stores."""

from pathlib import Path

import pytest

from data_pipeline.storage.object_access import AccessError, ObjectAccess, access_for

SECRET = "CANARY-0123456789-secret"
KEYS = f"aws_access_key_id = AKIACANARY\naws_secret_access_key = {SECRET}%\n"
IN_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIACANARY", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


def aws(**environment: str) -> dict[str, str | bool]:
    config = access_for("s3", environment).config
    assert config.pop("conditional_put") == "etag"
    return config


def write(home: Path, credentials: str = "", config: str = "") -> None:
    (home / ".aws/credentials").write_text(credentials)
    (home / ".aws/config").write_text(config)


def test_without_files_obstore_reads_the_environment() -> None:
    assert aws() == {}
    assert aws(**IN_ENVIRONMENT) == {}


def test_the_default_profile_may_have_keys_in_either_file(home: Path) -> None:
    keys = {"access_key_id": "AKIACANARY", "secret_access_key": SECRET + "%"}
    write(home, credentials=f"[default]\n{KEYS}[other]\n")
    assert aws() == keys
    write(home, config=f"[default]\n{KEYS}region = eu-west-1\n[profile other]\nregion = x\n")
    assert aws() == keys | {"region": "eu-west-1"}
    write(home, credentials=f"[default]\n{KEYS}aws_session_token = T\n")
    assert aws() == keys | {"session_token": "T"}


def test_a_named_profile_has_its_own_settings(home: Path) -> None:
    write(
        home,
        credentials=f"[default]\naws_access_key_id=X\n[lab]\n{KEYS}",
        config="[default]\nregion = x\n[lab]\nregion = y\n"
        "[profile lab]\nregion = eu-west-1\nendpoint_url = http://minio:9000/\n"
        "s3 =\n    addressing_style = path\n",
    )
    access = access_for("s3", {"AWS_PROFILE": "lab"})
    assert access.config["region"] == "eu-west-1"
    assert access.config["endpoint"] == "http://minio:9000"
    assert access.config["access_key_id"] == "AKIACANARY"
    assert access.client == {"allow_http": True}


def test_the_environment_takes_precedence_over_a_profile(home: Path) -> None:
    write(
        home,
        credentials=f"[default]\n{KEYS}",
        config="[default]\nregion = x\nendpoint_url = https://x\n",
    )
    assert aws(**IN_ENVIRONMENT) == {"region": "x", "endpoint": "https://x"}
    assert aws(AWS_DEFAULT_REGION="y", AWS_ENDPOINT_URL="https://y")["region"] == "y"
    both = {"AWS_ENDPOINT_URL": "https://y", "AWS_ENDPOINT_URL_S3": "https://z"}
    assert aws(**both)["endpoint"] == "https://z"
    assert "access_key_id" not in aws(AWS_WEB_IDENTITY_TOKEN_FILE="/token")
    assert "access_key_id" not in aws(AWS_SKIP_SIGNATURE="true")
    assert "access_key_id" in aws(AWS_WEB_IDENTITY_TOKEN_FILE="/token", AWS_PROFILE="default")


def test_the_environment_can_name_different_files(home: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"[lab]\n{KEYS}")
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys"), "AWS_PROFILE": "lab"}
    assert aws(**named)["access_key_id"] == "AKIACANARY"


@pytest.mark.parametrize(
    "setting",
    [
        "role_arn = arn:aws:iam::1:role/x\nsource_profile = default",
        "credential_process = touch executed",
        "sso_session = lab",
        "sso_start_url = https://lab.awsapps.com/start",
    ],
)
def test_profiles_that_need_a_program_are_refused_with_the_remedy(
    home: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    write(home, config=f"[profile lab]\n{setting}\n", credentials=f"[lab]\n{KEYS}")

    with pytest.raises(AccessError, match=f"'lab'.*{setting.split()[0]}.*export-credentials"):
        aws(AWS_PROFILE="lab")
    assert not (home / "executed").exists()
    aws(AWS_PROFILE="lab", **IN_ENVIRONMENT)  # the remedy


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_PROFILE": "none"}, r"no profile 'none'.*\.aws/config or .*\.aws/credentials"),
        ({"AWS_PROFILE": "empty"}, "'empty' of AWS_PROFILE has no aws_access_key_id"),
        ({"AWS_ENDPOINT_URL": "http://user:CANARY@host"}, "carries a user name or password"),
        ({"AWS_ACCESS_KEY_ID": "CANARY"}, "without AWS_SECRET_ACCESS_KEY"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "no credentials"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "AWS_ENDPOINT_URL is .*http://HOST:PORT"),
        ({"AWS_ENDPOINT_URL_S3": "http://[::1"}, "AWS_ENDPOINT_URL_S3 is .*http://HOST:PORT"),
        ({"AWS_ENDPOINT_URL": "http://"}, "AWS_ENDPOINT_URL is .*http://HOST:PORT"),
        ({"AWS_ENDPOINT_URL": " http://127.0.0.1:9"}, "AWS_ENDPOINT_URL has a blank"),
        ({"AWS_ACCESS_KEY_ID": "CANARY\n"}, "AWS_ACCESS_KEY_ID has a blank or a line end"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "a CANARY"}, "RELATIVE_URI has a blank"),
        ({"AWS_PROFILE": "odd"}, "endpoint_url of the profile is .*http://HOST:PORT"),
        ({"AWS_PROFILE": "long"}, "aws_session_token of the profile 'long' has a blank"),
        ({"AWS_CA_BUNDLE": "/none.pem"}, r"/none\.pem.*AWS_CA_BUNDLE"),
    ],
)
def test_unusable_settings_are_explained_without_showing_values(
    home: Path, environment: dict[str, str], message: str
) -> None:
    odd = f"[profile odd]\nendpoint_url = localhost:9\n{KEYS}"
    long = f"[profile long]\n{KEYS}aws_session_token = CANARY\n  CANARY\n"
    write(home, config=f"[profile empty]\nregion = x\n{odd}{long}")

    with pytest.raises(AccessError, match=message) as raised:
        aws(**environment)
    assert "CANARY" not in str(raised.value)


@pytest.mark.parametrize("text", [SECRET, f"[default]\n{SECRET}\n", f"[{SECRET}\n", "[a]\n\xff="])
def test_an_error_about_a_damaged_file_does_not_quote_it(home: Path, text: str) -> None:
    (home / ".aws/credentials").write_bytes(text.encode("latin-1"))

    with pytest.raises(AccessError, match="credentials cannot be read") as raised:
        aws()
    assert SECRET not in str(raised.value)
    assert raised.value.__suppress_context__


def test_keys_are_not_in_the_repr(home: Path) -> None:
    write(home, credentials=f"[default]\n{KEYS}")
    access = access_for("s3", {"AWS_SESSION_TOKEN": SECRET})

    assert "CANARY" not in repr(access)
    assert SECRET in access.secrets


def test_certificates_of_a_private_authority_are_read(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"certificates")
    access = access_for("s3", {"AWS_CA_BUNDLE": str(bundle)})
    assert access.client == {"allow_http": False, "root_certificate": b"certificates"}


def test_clouds_other_than_s3_are_configured_by_obstore() -> None:
    nothing = ObjectAccess({}, {"allow_http": False}, frozenset())
    assert access_for("gs", {}) == access_for("az", {}) == nothing
    emulator = access_for("gs", {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"})
    assert emulator.config == {"base_url": "http://127.0.0.1:1", "bearer_token": "emulator"}
    assert emulator.client == {"allow_http": True}
    for scheme, name in (("gs", "STORAGE_EMULATOR_HOST"), ("az", "AZURE_STORAGE_ENDPOINT")):
        with pytest.raises(AccessError, match=f"{name} is 'localhost:1'"):
            access_for(scheme, {name: "localhost:1"})

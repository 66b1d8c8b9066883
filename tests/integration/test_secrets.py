"""Canaries for credentials: no file of a run or dataset contains one in any form.

test_jobs.py searches the files of a job.
"""

import base64
import hashlib
import json
import subprocess
import sys
from urllib.parse import quote

import pytest
import yaml
from support import canaries
from support.canaries import NOTIFY_VARIABLE, PAGE_KEY, PASSWORD, USER, WANDB_KEY, leaks
from support.command import transloom
from support.files.guarded_server import GuardedServer
from support.recipes import tiny_values, write_yaml

from transloom.cli import app

NAMED_COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1", "--allow-empty"]
SIGNATURE = "X-Amz-Signature=c4n4ry0123456789abcdef"
URLS = [
    "https://canary-user:c4n4ry-pw@host.invalid/x.txt",
    "https://c4n4ry@host.invalid/x.txt",
    f"https://host.invalid/x.txt?{SIGNATURE}",
    "s3://c4n4ry:c4n4ry@bucket/x.txt",
]


def test_an_inline_run_leaks_no_credential(recipe, tmp_path):
    """W&B reads the address of git's origin in the folder where the command runs.

    The program for notifications fails, and the log must not contain its arguments.
    """
    work, run = tmp_path / "work", tmp_path / "run"
    origin = "https://c4n4ry:x-oauth-basic@host.invalid/repository.git"
    for command in (["init", "-q"], ["remote", "add", "origin", origin], NAMED_COMMIT):
        work.mkdir(exist_ok=True)
        subprocess.run(["git", "-C", work, *command], check=True)
    options = ["--inline", "tracking.wandb=offline", "trainer.max_steps=2", "--run", run]
    options.append(f"tracking.notify.targets=[{{command_from: {NOTIFY_VARIABLE}}}]")
    trained = transloom("train", recipe, *options, cwd=work, **canaries.environment(tmp_path))
    assert trained.returncode == 0, trained.stderr
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    (tmp_path / "said").write_text(trained.stdout + trained.stderr)
    assert f"{NOTIFY_VARIABLE} could not be delivered" in (run / "log.txt").read_text()
    assert NOTIFY_VARIABLE in (run / "recipe.yaml").read_text()
    assert leaks(["c4n4ry", PASSWORD, WANDB_KEY, PAGE_KEY], run, tmp_path / "said") == []


def test_preparing_a_dataset_leaks_no_credential(tmp_path):
    """The corpora need a password, which a failed download must not show."""
    texts = {
        f"text.{side}": "".join(f"{side} phrase {n} mot {n % 7}\n" for n in range(200)).encode()
        for side in ("fr", "en")
    }
    environment = canaries.environment(tmp_path)
    with GuardedServer(texts, f"{USER}:{PASSWORD}") as server:
        values = tiny_values(tmp_path / "dataset")
        corpus = {}
        for use, side in (("source", "fr"), ("target", "en")):
            corpus[use] = f"{server.url}/text.{side}"
            corpus[f"{use}_sha256"] = hashlib.sha256(texts[f"text.{side}"]).hexdigest()
        values["data"] |= {"train": [corpus], "validation": corpus, "tests": {}}
        values["data"]["cache"] = str(tmp_path / "cache")
        values["tokenizer"]["vocabulary_size"] = 60
        recipe = write_yaml(tmp_path / "recipe.yaml", values)
        prepared = transloom("prepare", recipe, cwd=tmp_path, **environment)
        assert prepared.returncode == 0, prepared.stderr
        assert server.shown == [server.wanted] * 2
        server.moved["text.fr"] = f"{server.url}/none?{SIGNATURE}"
        gone = ["data.dataset=other", f"data.cache={tmp_path / 'cache2'}"]
        failed = transloom("prepare", recipe, *gone, cwd=tmp_path, **environment)
        assert failed.returncode == 1
        assert "cannot be downloaded (ClientResponseError: 403" in failed.stderr
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_bytes())
    assert manifest["preparation"]["data"]["train"][0]["source"] == corpus["source"]
    (tmp_path / "said").write_text(prepared.stdout + prepared.stderr + failed.stderr)
    assert leaks([PASSWORD, "c4n4ry0123456789abcdef"], tmp_path) == []


@pytest.fixture
def recipe(tmp_path, phrasebook):
    return write_yaml(tmp_path / "tiny.yaml", tiny_values(phrasebook, max_steps=4))


@pytest.fixture
def said_of(monkeypatch, capsys, tmp_path):
    """Return a function that runs a failing command in this process and returns its output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["transloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        assert exit_.value.code in (1, 2)
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return output.out + output.err

    return run


@pytest.mark.parametrize("url", URLS)
def test_commands_refuse_credentials_before_anything_is_written(url, said_of, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    values = yaml.safe_load(recipe.read_text())
    in_file = tmp_path.with_name(f"{tmp_path.name}-other.yaml")
    hash_ = "0" * 64
    said = [
        said_of(command, recipe, override)
        for command in ("train", "prepare", "submit")
        for override in (
            f"data.dataset={url}",
            f"data.train.0.source={url}",
            f"data.train.0={{files: ['{url}'], files_sha256: [{hash_}]}}",
            f"data.dataste={url}",
            f"trainer.optimizer.options={{a: ['{url}']}}",
            f"trainer.init_from={url}",
        )
    ]
    for change in ({"tracking": {"project": url}}, {"name": url}, {"extensions": [url]}):
        in_file.write_text(yaml.safe_dump(values | change))
        said.append(said_of("train", in_file))
    said += [
        said_of("train", recipe, "--address", url),
        said_of("submit", recipe, "--address", url),
        said_of("jobs", "list", "--address", url),
        said_of("data", "info", url),
        said_of("data", "verify", url),
    ]
    assert all("carries" in text for text in said), said
    assert not any("c4n4ry" in text for text in said), said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        "name: [\n  https://canary-user:c4n4ry@host.invalid/x",
        "data: {dataset: 'https://canary-user:c4n4ry@host.invalid/x' x}",
        "a: !!python/object:os.x https://canary-user:c4n4ry@host.invalid/x",
    ],
)
def test_an_error_about_invalid_yaml_does_not_show_its_credentials(text, said_of, tmp_path):
    (tmp_path / "wrong.yaml").write_text(text)
    said = said_of("train", tmp_path / "wrong.yaml")
    assert "is not YAML" in said
    assert "line" in said
    assert "c4n4ry" not in said


@pytest.mark.parametrize("url", URLS)
def test_an_error_about_an_invalid_override_does_not_show_its_credentials(url, said_of, recipe):
    for override in (url, f"data.dataset=[{url}", f"name.{url}=1", f"data.train.{url}.a=1"):
        assert "c4n4ry" not in said_of("train", recipe, override)


def test_the_search_for_leaks_finds_every_encoding_of_a_secret(tmp_path):
    pair = f"user:{PASSWORD}".encode()
    held = [
        PASSWORD.encode(),
        quote(PASSWORD, safe="").encode(),
        *(base64.b64encode(b"x" * shift + pair) for shift in range(3)),
        base64.urlsafe_b64encode(pair),
    ]
    for number, content in enumerate(held):
        (tmp_path / str(number)).write_bytes(b"before" + content + b"after")
    found = {line.split(":")[0] for line in leaks([PASSWORD], tmp_path)}
    assert found == {str(tmp_path / str(number)) for number in range(len(held))}

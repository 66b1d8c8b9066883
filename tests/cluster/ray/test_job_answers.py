"""Ray's answers about jobs, and the meaning of its errors, without a cluster."""

from contextlib import suppress
from http.client import BadStatusLine
from types import SimpleNamespace
from urllib.error import URLError

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobType
from support.proxy_server import ProxyServer, proxy_of_environment

from cluster.errors import ClusterError
from cluster.ray import jobs
from cluster.ray.exposure import _lists_jobs_to_anyone
from cluster.ray.job_command import HEAD_PYTHON, Attachment
from cluster.ray.jobs import COMMAND_KEY, PROBE_KEY, jobs_api_errors, list_jobs, submit

ADDRESS = "http://127.0.0.1:8265"


def details(number, **fields):
    return JobDetails(
        **{
            "type": JobType.SUBMISSION,
            "submission_id": f"job-{number}",
            "status": JobStatus.RUNNING,
            "entrypoint": "cd /x; exec y",
            "metadata": {COMMAND_KEY: "transloom train", "recipe": "tiny"},
            **fields,
        }
    )


def test_a_job_has_times_in_seconds_and_the_submitted_command():
    message = "Running entrypoint for job job-1: cd /x; exec y\nbroken"
    job = jobs._job(
        details(
            1,
            status=JobStatus.FAILED,
            start_time=1_500_250,
            end_time=2_000_000,
            driver_exit_code=3,
            driver_node_id="n",
            message=message,
        )
    )
    assert (job.id, job.status, job.finished) == ("job-1", "FAILED", True)
    assert (job.started, job.ended) == (1500.25, 2000.0)
    assert (job.command, job.metadata) == ("transloom train", {"recipe": "tiny"})
    assert (job.message, job.exit_code, job.node) == ("broken", 3, "n")


def test_a_new_job_has_unknown_fields():
    job = jobs._job(details(1, metadata=None))
    assert (job.started, job.ended, job.exit_code, job.node) == (None, None, None, None)
    assert (job.command, job.message, job.metadata) == ("cd /x; exec y", "", {})
    assert not job.finished


@pytest.fixture
def client(monkeypatch):
    """Return a cluster client whose answers a test sets."""
    client = SimpleNamespace(submitted=[])

    def submit_job(**given):
        folder = given["runtime_env"].get("working_dir")
        files = {}
        if folder:
            root = jobs.Path(folder)
            files = {
                str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()
            }
        client.submitted.append((given, files))
        return "job-7"

    client.submit_job = submit_job
    monkeypatch.setattr(jobs, "_client", lambda address: client)
    return client


def test_jobs_are_listed_oldest_first_without_probe_jobs(client):
    client.list_jobs = lambda: [
        details(1, start_time=3000),
        details(2, start_time=1000),
        details(3, start_time=2000, metadata={PROBE_KEY: "1"}),
        details(4, start_time=500, type=JobType.DRIVER),
        details(5),
        details(6, start_time=2000, metadata=None),
    ]
    assert [job.id for job in list_jobs(ADDRESS)] == ["job-5", "job-2", "job-6", "job-1"]


def test_a_submission_contains_files_metadata_and_environment(client, tmp_path):
    shipped = tmp_path / "module.py"
    shipped.write_text("x = 1")
    command = [HEAD_PYTHON, Attachment("recipe.yaml", b"a: 1"), "model.width=7"]
    job_id = submit(
        command,
        address=ADDRESS,
        folder=tmp_path,
        shipped={"package/module.py": shipped},
        environment={"A": "1"},
        metadata={"recipe": "tiny"},
        job_id="mine",
    )
    ((given, files),) = client.submitted
    assert job_id == "job-7"
    assert files == {"recipe.yaml": b"a: 1", "package/module.py": b"x = 1"}
    assert given["metadata"] == {
        "recipe": "tiny",
        COMMAND_KEY: "python recipe.yaml model.width=7",
    }
    assert (given["submission_id"], given["entrypoint_num_cpus"]) == ("mine", 0)
    assert given["runtime_env"]["env_vars"] == {"A": "1"}


def test_a_submission_without_files_uploads_nothing(client, tmp_path):
    submit(["true"], address=ADDRESS, folder=tmp_path)
    ((given, files),) = client.submitted
    assert files == {}
    assert given["runtime_env"] == {"env_vars": {}}
    assert (given["metadata"], given["submission_id"]) == ({COMMAND_KEY: "true"}, None)


@pytest.mark.parametrize(
    ("error", "job_id", "said"),
    [
        (AuthenticationError("no"), None, "refuses this user's token"),
        (URLError("connection refused"), None, "No Ray dashboard answers at .*connection refused"),
        (BadStatusLine("\x00"), None, "the server there does not speak HTTP"),
        (RuntimeError("status code 404"), "mine", f"knows no job mine.*--address {ADDRESS}"),
        (RuntimeError("status code 404"), None, "refused the request: status code 404"),
        (
            RuntimeError("failed\nTraceback\nValueError: first\nTypeError: last"),
            "j",
            "request: last$",
        ),
    ],
    ids=["token", "away", "no HTTP", "unknown job", "no job asked for", "traceback"],
)
def test_an_error_is_one_paragraph_with_a_remedy(error, job_id, said):
    with pytest.raises(ClusterError, match=said), jobs_api_errors(ADDRESS, job_id):
        raise error


@pytest.mark.parametrize("status", [403, 407, 503])
def test_a_proxy_that_refuses_the_request_is_reported(monkeypatch, status):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with (
        proxy_of_environment(status) as proxy,
        pytest.raises(ClusterError, match=f"proxy {proxy.netloc} of http_proxy.*no_proxy") as error,
    ):
        list_jobs("http://head.example:8265")
    assert proxy.requests == ["http://head.example:8265/api/version"]
    assert "secret" not in str(error.value)


def test_a_dashboard_on_this_machine_is_reached_without_a_proxy(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    for request in (list_jobs, _lists_jobs_to_anyone):
        with proxy_of_environment() as proxy, ProxyServer() as head, suppress(ClusterError):
            request(f"http://{head.netloc}")
        assert (proxy.requests, len(head.requests)) == ([], 1)


@pytest.mark.parametrize(
    ("answer", "count"),
    [((200, ["ALIVE", "DEAD", "ALIVE"]), 2), ((200, []), 0), ((500, ["ALIVE"]), 0)],
)
def test_only_nodes_that_are_alive_are_counted(client, answer, count):
    status, states = answer
    result = {"data": {"result": {"result": [{"state": state} for state in states]}}}
    client._do_request = lambda *_, **__: SimpleNamespace(status_code=status, json=lambda: result)
    assert jobs.count_nodes(ADDRESS) == count


@pytest.mark.parametrize(("status", "content"), [(200, b"text"), (404, None)])
def test_a_file_next_to_the_logs_is_none_if_it_is_missing(client, status, content):
    asked = []

    def answer(*arguments, **options):
        asked.append(options["params"])
        return SimpleNamespace(status_code=status, content=b"text")

    client._do_request = answer
    assert jobs.file_next_to_logs(ADDRESS, "n", "a.log") == content
    assert asked == [{"node_id": "n", "filename": "a.log", "lines": -1}]

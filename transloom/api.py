"""Python API of transloom, for scripts, notebooks and projects with their own packages.

    import transloom

    transloom.prepare("phrasebook")
    run = transloom.train("phrasebook", {"trainer.max_steps": 100})
    with transloom.Translator(run) as translator:
        print(translator.translate(["je suis étudiant"]))

Each call runs the command `transloom` in a separate process. Your program imports only this module
of transloom, so it can have its own packages named `model` or `trainer`. Ray, torch and DeepSpeed
do not affect your program. A notebook keeps its event loop and its interrupt handling. The first
interrupt during a call requests a stop, as Ctrl-C does: a run writes a checkpoint.

docs/how-to/python.md documents the API in full, with an example that a test executes.
"""

import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

_INSTALLATION = Path(__file__).resolve().parent.parent
_PREEMPTED = 75
_LINES_KEPT = 50
# Variables that request colours in a pipe. Jupyter sets them for the programs that a notebook
# starts.
_COLOUR_VARIABLES = {"FORCE_COLOR", "CLICOLOR_FORCE"}
# First parts of a path in an object store, such as Path("s3://bucket/run").
_URL_PARTS = [("s3:",), ("gs:",), ("az:",)]
# HTTP statuses that ask the client to retry later.
_RETRY_LATER = (429, 503, 504)
# The child process imports transloom's packages, whatever the current directory or PYTHONPATH
# contains. With the argument "called", it receives SIGTERM when this program dies
# (PR_SET_PDEATHSIG).
_CHILD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
if sys.argv.pop(1) == "called":
    import contextlib, ctypes, signal
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
sys.argv[0] = "transloom"
from transloom.cli.entry import import_app
import_app().main()
"""

Overrides = Mapping[str, Any]


class TransloomError(Exception):
    """Failure of a command; the message is the error that the command printed.

    Attributes:
        exit_code: 1 for most errors, 2 for an invalid recipe or invalid arguments.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Recipe:
    """Recipe with its defaults filled in.

    Attributes:
        source: the file or the built-in name from which the recipe was loaded.
        overrides: the fields that were overridden, with their values.
        values: all fields, in sections, as JSON values.
    """

    source: str
    overrides: Mapping[str, Any]
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        """Return the value of a field by its dotted name, such as `trainer.max_steps`."""
        value: Any = self.values
        for part in key.split("."):
            value = value[int(part) if isinstance(value, list) else part]
        return value


def load_recipe(recipe: "str | Path | Recipe", overrides: Overrides | None = None) -> Recipe:
    """Load a recipe file, or a built-in recipe by its name.

    Args:
        overrides: field values by dotted name, such as {"trainer.max_steps": 100}.

    Raises:
        TransloomError: the recipe is invalid; the message has file, key, value and remedy.
    """
    source, changes = _source(recipe, overrides)
    return Recipe(source, changes, _call(["recipes", source, *_assignments(changes)]))


def prepare(
    recipe: str | Path | Recipe,
    overrides: Overrides | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Prepare the dataset of a recipe from its corpora, and return a summary.

    Args:
        overwrite: replace an existing dataset that was prepared with other settings.
        quiet: hide the progress of the command.

    Raises:
        TransloomError: the dataset cannot be prepared.
    """
    flags = _options(overwrite=overwrite)
    return _call(["prepare", *_recipe(recipe, overrides), *flags], quiet=quiet)


def plan(
    recipe: str | Path | Recipe,
    overrides: Overrides | None = None,
    *,
    run: "str | Path | Run | None" = None,
    address: str | None = None,
    measure: bool = False,
    check_nodes: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Estimate the memory, disk space and hours of a run, and return the estimates and problems.

    The returned `trainable` is True if the run can be trained; `problems` lists what prevents or
    affects the training.

    Args:
        run: the run's folder; by default a folder in runs/ named after the recipe.
        address: a running Ray cluster to inspect, HOST:PORT or auto.
        measure: if no run has recorded the speed, train one rank for a few steps to measure it.
        check_nodes: check the hardware of the cluster's nodes, or of this machine, for up to 20 s.
        quiet: hide the output of the command.
    """
    flags = _options(run=run, address=address, measure=measure, check_nodes=check_nodes)
    return _call(["plan", *_recipe(recipe, overrides), *flags], quiet=quiet, answers=(0, 1))


def train(
    recipe: str | Path | Recipe,
    overrides: Overrides | None = None,
    *,
    run: "str | Path | Run | None" = None,
    address: str | None = None,
    inline: bool = False,
    quiet: bool = False,
) -> "Run":
    """Train a run, or continue it if it exists, until the training has finished or is stopped.

    Args:
        run: the run's folder; by default a folder in runs/ named after the recipe.
        address: a running Ray cluster, HOST:PORT or auto; None starts Ray here for this call.
        inline: train one rank without Ray, for debugging.
        quiet: hide the output of the run while it trains.

    Raises:
        TransloomError: the run cannot be trained.
    """
    flags = _options(run=run, address=address, inline=inline)
    arguments = ["train", *_recipe(recipe, overrides), *flags]
    told = _call(arguments, quiet=quiet, answers=(0, _PREEMPTED))
    return Run(told["run"], outcome=told["outcome"])


def submit(
    recipe: str | Path | Recipe,
    overrides: Overrides | None = None,
    *,
    address: str,
    run: "str | Path | Run | None" = None,
    owner: str | None = None,
    priority: int | None = None,
) -> "Job":
    """Submit a run as a job of a Ray cluster, and return without waiting for the job.

    Args:
        address: URL of the cluster's dashboard, such as http://127.0.0.1:8265.
        run: the run's folder, on storage that all nodes share.
        owner: the job's owner; by default this user.
        priority: from 0 to 100; by default 50. Jobs with a higher priority get ranks first.
    """
    flags = _options(address=address, run=run, owner=owner, priority=priority)
    told = _call(["submit", *_recipe(recipe, overrides), *flags], quiet=True)
    return Job(told["job"], Run(told["run"]), address)


@dataclass(frozen=True)
class Job:
    """Job submitted to a Ray cluster."""

    id: str
    run: "Run"
    address: str

    def status(self) -> dict[str, Any]:
        """Return the status of the job, as `transloom jobs status --json` prints it."""
        return _call(["jobs", "status", self.id, "--address", self.address])

    def logs(self) -> str:
        """Return the output that the job has printed so far."""
        return _text(["jobs", "logs", self.id, "--address", self.address])

    def stop(self) -> None:
        """Stop the job after it has written a checkpoint, and return when it has stopped."""
        _call(["jobs", "stop", self.id, "--address", self.address])


class Run:
    """Run, identified by its folder or by its URL in an object store.

    Attributes:
        path: the folder, or the URL as a path.
        outcome: "finished" or "stopped" if a call of `train` returned this run, else None.
    """

    def __init__(self, path: "str | Path | Run", *, outcome: str | None = None) -> None:
        self.path: Path = path.path if isinstance(path, Run) else Path(path)
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    def status(self) -> dict[str, Any]:
        """Return state, step, scores and time left, as `transloom status --json` prints them."""
        return _call(["status", str(self.path)])

    def lines(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of the run's metrics file (metrics.jsonl).

        Args:
            kind: return only lines of this kind, such as `train` or `validation`; None returns all.
        """
        path = self.path / "metrics.jsonl"
        if self.path.parts[:1] in _URL_PARTS:
            text = _text(["runs", "record", str(self.path)])
        else:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        # The last element is empty, or an incomplete line.
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        return [line for line in lines if kind in (None, line["kind"])]

    @property
    def step(self) -> int:
        """Last step in the run's metrics file, or 0 if the file has no step."""
        return max((line["step"] for line in self.lines("train")), default=0)

    def losses(self) -> list[float]:
        """Return the loss of each step, in order."""
        return [line["loss"] for line in self.lines("train")]

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the run's checkpoints, oldest first, each with path, step, bytes and scores."""
        return _call(["checkpoints", "list", str(self.path)])

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the label of each text or of its words, as `transloom classify --json` prints it.

        Line ends within a text become spaces.

        Raises:
            TransloomError: the run was trained for another task, or has no checkpoint.
        """
        return self._read_texts("classify", texts, "--json")

    def evaluate(self, *, quiet: bool = False) -> Any:
        """Return the scores on the test sets, as `transloom evaluate --json` prints them."""
        return _call(["evaluate", str(self.path)], quiet=quiet)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the sentence embedding of each text. Line ends within a text become spaces.

        Raises:
            TransloomError: the run was trained for another task, or has no checkpoint.
        """
        return [embedded["vector"] for embedded in self._read_texts("embed", texts)]

    def stop(self) -> None:
        """Ask the run to write a checkpoint and stop, on whatever machine it is training."""
        _call(["stop", str(self.path)])

    def _read_texts(self, command: str, texts: Sequence[str], *flags: str) -> list[dict[str, Any]]:
        """Return the lines of JSON that a command prints about texts, one for each text."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "texts"
            lines = (" ".join(text.splitlines()) for text in texts)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            answer = _text([command, str(self.path), "--input", str(file), *flags])
        return [json.loads(line) for line in answer.split("\n")[:-1]]


@dataclass(frozen=True)
class Translation:
    """Translation with its score: log-probability (nats) divided by the length penalty."""

    text: str
    score: float


@dataclass(frozen=True)
class Explanation:
    """Page that shows how a model translates a sentence; a notebook displays the page in the cell.

    Attributes:
        html: the whole HTML page; it needs no network.
    """

    sentence: str
    translation: str
    html: str = field(repr=False)

    def save(self, file: str | Path) -> Path:
        """Write the page to a file that any browser can open, and return its path."""
        Path(file).write_text(self.html, encoding="utf-8")
        return Path(file)

    def _repr_html_(self) -> str:
        """Return the page in a sandboxed frame.

        The frame has a separate origin, so the page's scripts run without access to the notebook.
        """
        title = html.escape(f"Inside the Transformer: {self.sentence}")
        return (
            f'<iframe title="{title}" sandbox="allow-scripts allow-downloads" '
            f'srcdoc="{html.escape(self.html)}" '
            'style="width: 100%; height: 720px; border: 1px solid #8888"></iframe>'
        )


class _SentenceTranslator(ABC):
    """Source of translations: a process of this program, or a server."""

    def translate(
        self,
        sentences: Sequence[str],
        *,
        tag: str | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[str]:
        """Return the best translation of each sentence.

        Args:
            tag: tag to prepend to every sentence; it must be the tag of a training corpus.
            prefixes: the required beginning of each translation; "" requires none.

        Raises:
            TransloomError: a sentence is too long, in which case no sentence is translated; or the
                server rejects the request, or stays unreachable or overloaded.
        """
        best = self.translate_n_best(sentences, 1, tag=tag, prefixes=prefixes)
        return [translations[0].text for translations in best]

    def translate_n_best(
        self,
        sentences: Sequence[str],
        n: int,
        *,
        tag: str | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Translation]]:
        """Return the `n` best translations of each sentence, best first; see `translate`."""
        if isinstance(sentences, str):
            raise TypeError(
                "sentences is a string, expected a list of strings: wrap a single sentence in a "
                "list"
            )
        request = {
            "sentences": list(sentences),
            "n_best": n,
            "tag": tag,
            "prefixes": None if prefixes is None else list(prefixes),
        }
        found = self._translate(request)
        return [[Translation(one["text"], one["score"]) for one in of_one] for of_one in found]

    @abstractmethod
    def _translate(self, request: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Return texts and scores of the translations of each sentence, best first."""


class Translator(_SentenceTranslator):
    """Translator that runs a run's model in a separate process until it is closed."""

    def __init__(
        self,
        run: str | Path | Run,
        checkpoint: int | str | None = None,
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
        precision: str = "fp32",
        engine: str = "torch",
        compute_type: str | None = None,
    ) -> None:
        """Start the process, and wait until it has loaded the model.

        Args:
            checkpoint: a step, or the name of an average; None for the newest intact checkpoint.
            precision: "fp32" or "bf16".
            engine: "torch" for transloom's beam search, or "ctranslate2", which needs an optional
                extra.
            compute_type: data type of CTranslate2's matrix products, such as "int8"; None for
                "float32".

        Raises:
            TransloomError: the run or the checkpoint does not exist.
        """
        flags = _options(
            checkpoint=checkpoint,
            beam_size=beam_size,
            length_penalty=length_penalty,
            precision=precision,
            engine=engine,
            compute_type=compute_type,
        )
        self._lock = threading.Lock()
        self._child = _start(["answer-lines", str(Run(run).path), *flags], stays=True)
        self._said = _CommandOutput(self._child.stderr, quiet=True)
        self._end = weakref.finalize(self, _end, self._child)
        self._answer()  # wait until the process has loaded the model

    def _translate(self, request: dict[str, Any]) -> list[list[dict[str, Any]]]:
        return self._ask(request)["translations"]

    def explain(self, sentence: str, *, tag: str | None = None, live: bool = True) -> Explanation:
        """Return the page of `transloom explain` for a sentence; notebooks display it in the cell.

        Args:
            tag: tag to prepend to the sentence; it must be the tag of a training corpus.
            live: include the model in the page, so that readers can type other sentences. A
                notebook stores the page in its file: with the model of the phrase book, the page
                has 5 MB; without the model, it has less than 1 MB.

        Raises:
            TransloomError: the sentence is too long.
        """
        answer = self._ask({"explain": sentence, "tag": tag, "live": live})
        return Explanation(sentence, answer["translation"], answer["page"])

    def close(self) -> None:
        """End the translator's process; the translator cannot be used afterwards."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._child.stdin is None or self._child.stdin.closed:
                raise TransloomError("The translator is closed: create another one", 1)
            try:
                with suppress(BrokenPipeError):  # the process has ended; `_answer` raises its error
                    self._child.stdin.write(json.dumps(request) + "\n")
                    self._child.stdin.flush()
                return self._answer()
            except BaseException as error:
                if not isinstance(error, TransloomError):
                    # Otherwise the next request would read the answer to this request.
                    self._child.kill()
                    self.close()
                raise

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait()
            raise TransloomError(self._said.error(), code)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise TransloomError(answer["error"], 1)
        return answer


class ServedTranslator(_SentenceTranslator):
    """Client of a run served by `transloom serve`, on this machine or elsewhere."""

    def __init__(
        self,
        address: str,
        run: str | None = None,
        *,
        token: str | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        """Store the server's address, without sending a request.

        Args:
            address: URL of the server, such as `http://127.0.0.1:8644`.
            run: the run's name on the server; None for the server's first run.
            token: the bearer token of the server, if it requires one.
            patience_seconds: time for which a request is retried if the server is overloaded, has
                no replica, or cannot be reached. Translation has no side effects, so retries are
                safe.
        """
        path = "translate" if run is None else f"runs/{quote(run, safe='')}/translate"
        self._url = f"{address.rstrip('/')}/{path}"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._patience_seconds = patience_seconds
        # Choose proxies like foundation/proxies.py, which is not importable in users' programs.
        url = urlsplit(self._url)
        host = url.hostname or ""
        is_local = host in ("localhost", "::1") or host.startswith("127.")
        proxies = {} if is_local else urllib.request.getproxies()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        self._proxy_hint = ""
        if url.scheme in proxies and not urllib.request.proxy_bypass(host):
            proxy = proxies[url.scheme].rpartition("@")[2].rpartition("//")[2]
            self._proxy_hint = (
                f", through the proxy {proxy} of {url.scheme}_proxy; add the host to no_proxy if "
                "it can be reached without the proxy"
            )

    def _translate(self, request: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Send a request, unless it has no sentences.

        Raises:
            TransloomError: the server rejects the request, or stays unreachable or overloaded.
        """
        if not request["sentences"]:
            return []
        body = json.dumps(request).encode()
        until = time.monotonic() + self._patience_seconds
        while True:
            pause = 0.5
            try:
                posted = urllib.request.Request(self._url, body, self._headers)
                with self._opener.open(posted) as response:
                    return json.load(response)["translations"]
            except HTTPError as error:
                with error:
                    problem = error.read().decode(errors="replace") + self._proxy_hint
                with suppress(ValueError, KeyError, TypeError):
                    problem = json.loads(problem)["problem"]
                if error.code not in _RETRY_LATER:
                    raise TransloomError(problem, 1) from error
                with suppress(ValueError):  # a proxy may send a date instead of seconds
                    pause = float(error.headers.get("Retry-After", pause))
            # The server may be starting or may be replaced by another one.
            except (URLError, ConnectionError, HTTPException) as error:
                reason = f"{getattr(error, 'reason', error)}{self._proxy_hint}"
                problem = f"{self._url} cannot be reached: {reason}"
            if time.monotonic() + pause > until:
                raise TransloomError(problem, 1)
            time.sleep(pause)


def _end(child: "subprocess.Popen[str]") -> None:
    """End a translator's process by closing its standard input, and wait for its exit."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    child.wait()


def _source(
    recipe: str | Path | Recipe, overrides: Overrides | None
) -> tuple[str, Mapping[str, Any]]:
    if isinstance(recipe, Recipe):
        return recipe.source, {**recipe.overrides, **(overrides or {})}
    return str(recipe), dict(overrides or {})


def _recipe(recipe: str | Path | Recipe, overrides: Overrides | None) -> list[str]:
    source, changes = _source(recipe, overrides)
    return [source, *_assignments(changes)]


def _assignments(overrides: Overrides) -> list[str]:
    """Return overrides as arguments of a command; the values are JSON, which is valid YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def _options(**values: Any) -> list[str]:
    """Return options as arguments of a command; None and False leave an option out."""
    found: list[str] = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        found.append(f"--{name.replace('_', '-')}")
        if value is not True:
            found.append(os.fspath(value) if isinstance(value, Run) else str(value))
    return found


def _call(arguments: Sequence[str], *, quiet: bool = True, answers: Sequence[int] = (0,)) -> Any:
    """Run a command, and return its result parsed from JSON.

    Args:
        answers: exit codes with which the command prints a result; all other codes are errors.
    """
    return json.loads(_text([*arguments, "--json"], quiet=quiet, answers=answers))


def _text(arguments: Sequence[str], *, quiet: bool = True, answers: Sequence[int] = (0,)) -> str:
    child = _start(arguments, stays=False)
    said = _CommandOutput(child.stderr, quiet=quiet)
    answered = _CommandOutput(child.stdout, quiet=True, kept=None)
    while True:
        try:
            code = child.wait()
            answer = answered.text()
            break
        except KeyboardInterrupt:
            # The first interrupt requests a stop, the second an immediate exit.
            child.send_signal(signal.SIGINT)
    if code not in answers or not (answer or code == 0):
        raise TransloomError(said.error(), code)
    return answer


def _start(arguments: Sequence[str], *, stays: bool) -> "subprocess.Popen[str]":
    how = "stays" if stays else "called"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, str(_INSTALLATION), how, *arguments],
        stdin=subprocess.PIPE if stays else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
        env={name: value for name, value in os.environ.items() if name not in _COLOUR_VARIABLES},
        # In a separate group, the child does not receive Ctrl-C from this program's terminal.
        process_group=0,
    )


class _CommandOutput:
    """Output of a command, which is collected and, unless quiet, copied to standard error."""

    def __init__(
        self, stream: IO[str] | None, *, quiet: bool, kept: int | None = _LINES_KEPT
    ) -> None:
        assert stream is not None
        self._stream = stream
        self._quiet = quiet
        self._lines: deque[str] = deque(maxlen=kept)
        # A program may replace sys.stderr later, as a notebook does for each cell. The output of
        # this command stays in the stream with which its call began.
        self._shown_in = sys.stderr
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Wait until the command has closed its output, and return the lines that were kept."""
        self._thread.join()
        return "".join(self._lines)

    def error(self) -> str:
        """Return the last paragraph that begins with `error:`, or all output if there is none."""
        last_error = re.split("^error:", self.text(), flags=re.MULTILINE)[-1]
        return last_error.strip() or "transloom ended without any output"

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                self._lines.append(line)
                if not self._quiet:
                    print(line, end="", file=self._shown_in, flush=True)

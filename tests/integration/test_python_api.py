"""`import transloom`: the page's example in an event loop, in a project with another `model/`.

test_jobs.py submits a job with this API.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
from support.command import run_python
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml

import transloom
from transloom.inference.translator import Translator as InProcess

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "python.md"


def example():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return code


@pytest.fixture
def project(phrasebook, tmp_path, monkeypatch):
    """Return a folder that has packages with transloom's names, and a tiny recipe `phrasebook`."""
    monkeypatch.chdir(tmp_path)
    for name in ("cluster", "trainer", "run_store", "model", "data_pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"WHOSE = 'mine: {name}'\n")
    values = tiny_values(phrasebook) | {"decoding": SHORT_TRANSLATIONS}
    values["trainer"]["validate_every_steps"] = 4
    write_yaml(tmp_path / "phrasebook", values)  # takes precedence over the built-in recipe
    return tmp_path


def test_the_page_s_example_runs_in_a_notebook_of_a_project_with_the_same_package_names(project):
    """A notebook's cell runs in the main thread, while an event loop runs there."""
    program = (
        "import asyncio, sys\n"
        "import model\n"
        "async def cell():\n"
        f"{textwrap.indent(example(), '    ')}\n"
        "    import trainer\n"
        "    print(model.WHOSE, trainer.WHOSE)\n"
        "    print([n for n in ('torch', 'ray', 'pydantic') if n in sys.modules])\n"
        "asyncio.run(cell())\n"
    )
    # With -c, the current folder is first on the path.
    done = run_python(program, PYTHONPATH=f"{project}{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr
    width, trained, translation, whose, imported = done.stdout.splitlines()
    assert width == "32"
    assert trained.startswith("finished 4 [")
    assert translation.startswith("[")
    assert whose == "mine: model mine: trainer"
    assert imported == "[]"
    assert "step 4/4" in done.stderr  # the run's progress


def test_a_call_in_a_thread_does_not_block_the_event_loop(project):
    async def both():
        ticks = 0
        loading = asyncio.create_task(asyncio.to_thread(transloom.load_recipe, "phrasebook"))
        while not loading.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks, await loading

    ticks, recipe = asyncio.run(both())
    assert ticks > 1
    assert recipe["trainer.max_steps"] == 20
    assert recipe["data.train.0.source"] == "builtin:phrasebook/train.fr"


def test_errors_of_the_api_have_the_message_and_exit_code_of_the_command(project, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter does
    with pytest.raises(transloom.TransloomError) as raised:
        transloom.load_recipe("phrasebook", {"trainer.max_step": 3})
    assert raised.value.exit_code == 2
    assert "\x1b" not in str(raised.value)
    with pytest.raises(transloom.TransloomError):
        transloom.Translator("nowhere")
    plan = transloom.plan("phrasebook", {"data.dataset": "/nowhere"}, measure=False)
    assert [problem["about"] for problem in plan["problems"]] == ["dataset"]


def test_an_interrupt_leaves_a_checkpoint(project):
    """The interrupt comes during the steps; the call returns after a checkpoint."""
    program = (
        "import transloom, sys\n"
        "changes = {'trainer.max_steps': 1_000_000, 'checkpoints.every_steps': 1_000_000}\n"
        "run = transloom.train('phrasebook', changes, run='run', inline=True)\n"
        "print(run.outcome, run.step, [c['step'] for c in run.checkpoints()])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in child.stderr:
        if "step " in line and "loss" in line:
            break
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the program's process group
    said, _ = child.communicate()
    outcome, step, checkpoints = said.split(maxsplit=2)
    assert outcome == "stopped"
    assert checkpoints == f"[{step}]\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, phrasebook):
    """Return a run of four steps."""
    folder = tmp_path_factory.mktemp("trained")
    values = tiny_values(phrasebook, max_steps=4) | {"decoding": SHORT_TRANSLATIONS}
    recipe = write_yaml(folder / "tiny.yaml", values)
    return transloom.train(recipe, run=folder / "run", inline=True, quiet=True)


def test_a_translator_returns_the_translations_of_the_network(trained):
    sentences = ["je suis étudiant", "", "elle est là"]
    expected = InProcess.load(trained.path)
    with transloom.Translator(trained, beam_size=2) as translator:
        expected.decoding = expected.decoding.model_copy(update={"beam_size": 2})
        assert translator.translate(sentences) == expected.translate(sentences)
        best = translator.translate_n_best(sentences, 3)
        with pytest.raises(transloom.TransloomError):
            translator.translate(["chat " * 5000])
        with pytest.raises(transloom.TransloomError):
            translator.explain("chat " * 5000)
        explained, alone = (translator.explain(sentences[0], live=live) for live in (True, False))
        assert translator.translate(sentences) == expected.translate(sentences)  # still usable
    assert f"<title>{sentences[0]} → " in explained.html
    assert ('id="live"' in explained.html, 'id="live"' in alone.html) == (True, False)
    assert explained.translation == alone.translation
    assert [len(of_one) for of_one in best] == [3, 3, 3]
    assert all(a.score >= b.score for of_one in best for a, b in pairwise(of_one))
    with pytest.raises(transloom.TransloomError):
        translator.translate(sentences)
    with pytest.raises(TypeError, match="list of strings"):
        translator.translate("je suis")


def test_after_an_interrupt_no_request_gets_the_answer_of_another_request(trained, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    with transloom.Translator(trained) as translator:
        with monkeypatch.context() as patch:
            patch.setattr(translator, "_answer", interrupted)  # reads the process's answer
            with pytest.raises(KeyboardInterrupt):
                translator.translate(["je suis étudiant"])
        with pytest.raises(transloom.TransloomError):
            translator.translate(["elle est là"])


def test_a_run_object_reads_the_run_s_record(trained):
    assert (trained.outcome, trained.step) == ("finished", 4)
    assert len(trained.losses()) == 4
    assert trained.status()["state"] == "finished"
    assert [line["step"] for line in trained.lines("validation")] == [4]
    assert [row["step"] for row in trained.checkpoints()] == [4]
    assert transloom.Run(trained.path).losses() == trained.losses()
    with (trained.path / "metrics.jsonl").open("a") as record:
        record.write('{"kind": "tra')  # a torn line
    assert trained.step == 4

"""Commands on datasets: their output for readers and as JSON."""

import hashlib
import io
import json
import re
import shutil
from collections import Counter

import pytest
from rich.console import Console
from support.files.faulty_server import FaultyServer
from support.files.json_files import edited_json

from cluster.recipe import load_recipe
from data_pipeline.dataset import manifest as manifest_module
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import open_store
from transloom.cli.prepare import prepare_dataset


@pytest.fixture(scope="module")
def prepared(two_corpora):
    """Return the dataset of the recipe, which tests must not change."""
    recipe = load_recipe(two_corpora)
    prepare_dataset(recipe, Console(file=io.StringIO()), overwrite=False)
    return two_corpora.parent / "dataset"


@pytest.fixture
def dataset(prepared, tmp_path):
    """Return a copy of the dataset, which a test may damage."""
    return shutil.copytree(prepared, tmp_path / "dataset")


def manifest_of(dataset):
    return Manifest.load(open_store(dataset))


def test_prepare_counts_read_kept_and_dropped_pairs_by_corpus(transloom, two_corpora, tmp_path):
    arguments = (two_corpora, f"data.dataset={tmp_path / 'new'}", "--processes", 1)
    summary = json.loads(transloom("prepare", *arguments, "--json").stdout)
    dropped = {"length_ratio": 1, "identical": 1, "empty": 7}
    plain, tagged = summary["corpora"]
    assert (plain["name"], plain["read"], plain["kept"]) == ("plain", 320, 320)
    assert (tagged["name"], tagged["read"], tagged["kept"]) == ("tagged", 100, 91)
    assert {reason: n for reason, n in tagged["dropped"].items() if n} == dropped
    assert (summary["pairs"], summary["unchanged"]) == (411, False)
    assert summary["identity"] == manifest_of(tmp_path / "new").identity

    again = transloom("prepare", *arguments).stdout
    assert "already exists, unchanged: 411 pairs" in again
    assert "plain: 320 of 320 pairs kept; dropped: none" in again
    assert "tagged: 91 of 100 pairs kept; dropped: 7 empty, 1 length ratio, 1 identical" in again


def test_prepare_shows_the_progress_of_its_stages(two_corpora, tmp_path):
    recipe = load_recipe(two_corpora, [f"data.dataset={tmp_path / 'new'}"])
    output = io.StringIO()
    prepare_dataset(recipe, Console(file=output, width=80), overwrite=False)
    size = sum((two_corpora.parent / f"{n}.tsv").stat().st_size for n in ("plain", "tagged"))
    opened, read, train, write = output.getvalue().splitlines()
    assert "2 of 2 corpora" in opened
    assert f"{size / 1000:.1f} kB of {size / 1000:.1f} kB" in read
    assert train.startswith("train tokenizer")
    assert "411 of 411 examples" in write
    output.truncate(0)
    prepare_dataset(recipe, Console(file=output, width=80), overwrite=False)
    assert re.search(r"compare .* (\d+) of \1 files", output.getvalue())


def test_info_shows_the_manifest_and_the_cleaning_report(transloom, prepared):
    facts = json.loads(transloom("data", "info", prepared, "--json").stdout)
    manifest = manifest_of(prepared)
    assert facts["identity"] == facts["origin"] == manifest.identity
    assert (facts["pairs"], facts["pairs_to_train_on"], facts["quarantined"]) == (411, 411, [])
    assert {h["name"]: (h["pairs"], h["tag"]) for h in facts["heldout"]} == {
        "validation": (10, None),
        "final": (10, "<2en>"),
    }
    report = json.loads((prepared / "cleaning.json").read_text())
    for corpus in facts["corpora"]:
        for reason, count in corpus["dropped"].items():
            assert report[corpus["name"]][reason]["count"] == count
            assert report[corpus["name"]][reason]["examples"] == corpus["examples"][reason]
    for field in facts["fields"]:
        lengths = Counter()
        for shard in manifest.shards:
            for block in unpack_shard((prepared / shard.name).read_bytes(), shard):
                lengths.update(block.fields[field["name"]].lengths.tolist())
        assert {n: count for n, count in enumerate(field["lengths"]) if count} == lengths
        assert field["longest"] == max(lengths)
        assert field["median_length"] == sorted(lengths.elements())[205]
        assert field["tokens"] == sum(lengths.elements())


def test_info_fits_a_terminal_of_80_columns(transloom, prepared):
    output = transloom("data", "info", prepared, "--examples").stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert max(len(line) for line in output.splitlines()) <= 80
    assert "plain 10 320 320 0" in lines
    assert "tagged, tagged <2en> 3 100 91 9" in lines
    assert "final: 10 pairs, tagged <2en>" in output
    assert "empty 7" in lines
    assert "dropped from tagged, empty: 7 pairs" in lines
    assert "1 '' 'to nothing 0'" in lines
    # Text of a corpus must neither control the terminal nor be interpreted as markup.
    assert r"51 '\x1b[31m[bold]même' '\x1b[31m[bold]même'" in lines
    assert "\x1b" not in output
    assert "dropped from" not in transloom("data", "info", prepared).stdout


def test_info_and_verify_accept_the_url_of_a_dataset(transloom, prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path))
    with FaultyServer(prepared) as server:
        remote = json.loads(transloom("data", "info", server.url, "--json").stdout)
        assert "intact" in transloom("data", "verify", server.url, "--processes", 1).stdout
    local = json.loads(transloom("data", "info", prepared, "--json").stdout)
    assert remote == {**local, "dataset": server.url}


def test_a_manifest_in_columns_describes_the_same_dataset(transloom, dataset, monkeypatch):
    monkeypatch.setattr(manifest_module, "MIN_SHARDS_FOR_COLUMNS", 1)
    name = manifest_of(dataset).shards[2].name
    transloom("data", "quarantine", dataset, name, "--reason", "lost")

    def answers():
        info = json.loads(transloom("data", "info", dataset, "--json", "--examples").stdout)
        return info, json.loads(transloom("data", "verify", dataset, "--json").stdout)

    info, verified = answers()
    manifest_of(dataset).save_new(dataset)
    assert manifest_of(dataset).columns_files()
    assert answers() == (info, verified | {"files": verified["files"] + 1})
    assert (verified["problems"], verified["unknown_files"]) == ([], [])


def test_info_refuses_a_folder_without_a_dataset(transloom, tmp_path):
    with pytest.raises(DatasetError):
        transloom("data", "info", tmp_path)


def test_verify_accepts_an_intact_dataset_with_an_extra_file(transloom, dataset):
    (dataset / "shards" / "notes.txt").write_text("mine")
    result = transloom("data", "verify", dataset)
    assert result.exit_code == 0
    assert f"is intact: {len(list(manifest_of(dataset).files()))} files" in " ".join(
        result.stdout.split()
    )
    assert "not listed in the manifest, which no run reads: shards/notes.txt." in " ".join(
        result.stdout.split()
    )


def test_verify_lists_damaged_files_and_the_remedies(transloom, dataset):
    (dataset / "shards" / "plain-00002.tar").unlink()
    with (dataset / "shards" / "tagged-00001.tar").open("ab") as file:
        file.write(b"x")
    (dataset / "heldout" / "validation.src.txt").write_text("another\n")
    result = transloom("data", "verify", dataset, "--json")
    assert result.exit_code == 1
    verified = json.loads(result.stdout)
    problems = {problem["file"]: problem for problem in verified["problems"]}
    size = (dataset / "shards" / "tagged-00001.tar").stat().st_size
    assert sorted(problems) == [
        "heldout/validation.src.txt",
        "shards/plain-00002.tar",
        "shards/tagged-00001.tar",
    ]
    assert problems["shards/tagged-00001.tar"]["expected"] == f"{size - 1:,} bytes"
    assert problems["shards/tagged-00001.tar"]["found"] == f"{size:,} bytes"

    result = transloom("data", "verify", dataset)
    assert result.exit_code == 1
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    told = " ".join(result.stdout.split())
    for name in problems:
        assert name in told
    assert "Restore these files from a copy, or run `transloom prepare`" in told
    lost = "shards/plain-00002.tar shards/tagged-00001.tar"
    assert re.sub(r"\s", "", f"data quarantine {dataset} {lost} --reason") in re.sub(
        r"\s", "", result.stdout
    )


def test_verify_compares_the_tokenizers_vocabulary_size_with_the_manifest(transloom, dataset):
    with edited_json(dataset / "manifest.json") as manifest:
        for info in manifest["tokenizers"].values():
            info["vocabulary_size"] += 1
    result = transloom("data", "verify", dataset, "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem == {"file": "tokenizer.model", "expected": "91 ids", "found": "90"}


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ("[]", "found a list"),
        ('{"plain": []}', "plain: Input should be a valid dictionary"),
        (
            '{"plain": {"surprise": {"count": 1, "examples": []}}}',
            "'surprise', which is not in the",
        ),
        ('{"plain": {"empty": {"count": 1, "examples": [{}]}}}', "is not a number with its texts"),
        ("[" * 9999, "nested deeper than 64"),
    ],
)
def test_info_reports_an_invalid_cleaning_report(transloom, dataset, report, problem):
    (dataset / "cleaning.json").write_text(report)
    with edited_json(dataset / "manifest.json") as manifest:
        manifest["cleaning"]["sha256"] = hashlib.sha256(report.encode()).hexdigest()
    with pytest.raises(DatasetError, match=rf"cleaning\.json .*{problem}"):
        transloom("data", "info", dataset, "--examples")


def test_verify_suggests_quarantine_only_for_shards(transloom, dataset):
    (dataset / "cleaning.json").unlink()
    result = transloom("data", "verify", dataset)
    assert result.exit_code == 1
    assert "quarantine" not in result.stdout


def test_quarantine_excludes_shards_and_can_be_undone(transloom, dataset):
    parent = manifest_of(dataset)
    lost = parent.shards[2]
    (dataset / lost.name).unlink()
    command = ("data", "quarantine", dataset, lost.name, lost.name, "--reason", "[red] disk")
    done = json.loads(transloom(*command, "--json").stdout)
    assert done["parent"] == parent.identity
    assert done["identity"] == manifest_of(dataset).identity != parent.identity
    assert done["shards"] == [lost.name]
    assert done["pairs_left_out"] == lost.pairs
    assert done["pairs_to_train_on"] == 411 - lost.pairs
    assert [t.shard for t in manifest_of(dataset).tombstones] == [lost.name]

    facts = json.loads(transloom("data", "info", dataset, "--json").stdout)
    assert (facts["identity"], facts["origin"]) == (done["identity"], parent.identity)
    assert facts["pairs_quarantined"] == lost.pairs
    (entry,) = facts["quarantined"]
    assert (entry["shard"], entry["pairs"], entry["reason"]) == (
        lost.name,
        lost.pairs,
        "[red] disk",
    )
    told = " ".join(transloom("data", "info", dataset).stdout.split())
    assert f"{lost.name}: {lost.pairs:,} pairs fewer; [red] disk" in told

    result = transloom("data", "verify", dataset)
    assert result.exit_code == 0
    assert f"Quarantined and not checked: {lost.name}." in " ".join(result.stdout.split())
    assert "does not know" not in result.stdout

    with pytest.raises(DatasetError):
        transloom(*command)
    shutil.move(done["parent_file"], dataset / "manifest.json")
    assert manifest_of(dataset).identity == parent.identity


def test_quarantine_prints_how_many_pairs_remain_and_how_to_undo_it(transloom, dataset):
    shard = manifest_of(dataset).shards[0]
    told = transloom("data", "quarantine", dataset, shard.name, "--reason", "x").stdout
    assert f"loses {shard.pairs:,} pairs: {411 - shard.pairs:,} of 411 remain" in told
    assert manifest_of(dataset).identity in told
    assert f"mv {dataset}/manifest-" in told


def test_quarantine_refuses_urls_and_unknown_shards(transloom, dataset):
    with pytest.raises(DatasetError, match=r"https://example\.org/d is a URL"):
        transloom("data", "quarantine", "https://example.org/d", "a.tar", "--reason", "x")
    with pytest.raises(DatasetError):
        transloom("data", "quarantine", dataset, "a.tar", "--reason", "x")
    assert transloom("data", "quarantine", dataset, "a.tar").exit_code == 2  # without --reason
    assert manifest_of(dataset).tombstones == ()

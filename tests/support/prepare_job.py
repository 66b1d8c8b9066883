"""Run `prepare` in a separate process, which a test can measure or kill.

The argument is the path of a JSON file with the settings `data` and `tokenizer`, and optionally
`processes`, `overwrite`, and `buffered_bytes` and `pairs_per_chunk` for many small parts. The
program prints a line for every report, with its maximum memory until then, in bytes.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.preparation import ingest, shuffle
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress
from support.data_settings import settings_of


def start(folder: Path, **job: Any) -> "subprocess.Popen[str]":
    """Start the job in a separate session, so that a test can kill it with all its processes."""
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return subprocess.Popen(
        [sys.executable, __file__, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def main(job: dict[str, Any]) -> None:
    def report(progress: PrepareProgress) -> None:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        stage = progress.stage.replace(" ", "-")
        print(stage, progress.done, progress.total, peak_bytes, flush=True)

    shuffle.BUFFERED_BYTES = job.get("buffered_bytes", shuffle.BUFFERED_BYTES)
    ingest.EXAMPLES_PER_CHUNK = job.get("pairs_per_chunk", ingest.EXAMPLES_PER_CHUNK)
    prepare(
        settings_of(
            PairDataConfig.model_validate(job["data"]),
            TokenizerConfig.model_validate(job["tokenizer"]),
        ),
        report,
        overwrite=job.get("overwrite", False),
        processes=job.get("processes"),
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

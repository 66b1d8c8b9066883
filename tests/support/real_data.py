"""Find the files of Multi30k: in the folder that TRANSLOOM_TEST_DATA names, or next to the
checkout, in shared/data/multi30k."""

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"
MULTI30K = Path(os.environ.get("TRANSLOOM_TEST_DATA") or BESIDE)

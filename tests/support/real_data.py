"""Find the files of Multi30k.

They are in the folder that TRANSLOOM_TEST_DATA names, or else in shared/data/multi30k next to the
checkout.
"""

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"
MULTI30K = Path(os.environ.get("TRANSLOOM_TEST_DATA") or BESIDE)

"""What a spare imports before it becomes a rank."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# In a process of its own, in which nothing else has been imported.
PROGRAM = """
import json, sys
from cluster.ranks.actor import RankActor

spare = object.__new__(RankActor.__ray_metadata__.modified_class)
spare.import_trainer("cpu")
names = ["deepspeed.runtime.zero.muon.muon_optimizer", "wave", "there.is.none"]
before = [name in sys.modules for name in names]
spare.import_modules(names)
after = [name in sys.modules for name in names]
print(json.dumps([before, after, "torch._dynamo" in sys.modules]))
"""


def test_a_spare_imports_what_a_rank_has_and_no_compiler():
    """One of the modules that an engine imports would import the compiler, which takes seconds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after, compiler = json.loads(done.stdout.splitlines()[-1])
    assert before == [False, False, False]
    assert after == [True, True, False]
    assert not compiler

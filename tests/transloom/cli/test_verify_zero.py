import json
import os
import subprocess
import sys

from trainer.verify_zero import report
from trainer.verify_zero.report import ZeroReport
from transloom.cli.verify_zero import verify_zero


def test_verify_zero_sends_output_of_libraries_to_stderr(monkeypatch, capfd):
    """Some libraries print lines to stdout when this process or a child imports them."""

    def computed(recipe, **options):
        os.write(1, b"[INFO] Setting ds_accelerator to cpu\n")
        subprocess.run([sys.executable, "-c", "print('[INFO] of a child')"], check=True)
        return ZeroReport({"deepspeed": "0.16.9"}, "cpu", "fp32", 1, 5, [])

    monkeypatch.setattr(report, "report_of", computed)
    verify_zero("phrasebook", None, None, None, 1, 10.0, True)
    answered = capfd.readouterr()
    assert json.loads(answered.out)["versions"] == {"deepspeed": "0.16.9"}
    assert answered.err.count("[INFO]") == 2

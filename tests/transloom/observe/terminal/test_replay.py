"""The readable report of `transloom replay`."""

import io

from foundation.terminal import Terminal
from trainer.replay.replay_report import Difference, InspectedStep, ReplayReport, Verdict
from transloom.observe.terminal.replay import replay_report_text

ROUNDED = {
    "same": True,
    "promise": "up to rounding",
    "to_the_last_bit": False,
    "data": "same",
    "losses": "same",
    "state": "not_compared",
}


def said(run="runs/demo", **verdict):
    step = InspectedStep(
        step=330, loss=1.2, nll=0.2, grad_norm=1.0, recorded_loss=1.2, recorded_grad_norm=1.0
    )
    look = ReplayReport(
        run=run,
        from_step=330,
        to_step=331,
        replayed_from=300,
        steps_trained=31,
        ranks=1,
        verdict=Verdict.model_validate(ROUNDED | verdict),
        steps=[step],
    )
    console = Terminal(file=io.StringIO(), width=200)
    console.print(replay_report_text(look, 10))
    return console.file.getvalue()


def test_amplified_rounding_is_reported_but_not_as_a_difference():
    text = said(largest_difference=0.0021, amplified_rounding=True)
    assert "rounding, which training has amplified, up to 2.1e-03 apart" in text
    assert "DIFFERENT" not in text
    assert "amplified" not in said(largest_difference=2e-8)


def test_the_report_names_the_command_that_compares_bits_if_possible():
    command = "transloom replay 'runs/my demo' --steps 330:331 --ranks 2"
    assert command in said(run="runs/my demo", ranks_for_bits=2)
    assert "--ranks" not in said()


def test_a_difference_is_reported_with_both_values():
    difference = Difference(step=330, what="loss", recorded=1.5, replayed=1.2)
    text = said(same=False, losses="different", first_difference=difference)
    assert "DIFFERENT" in text
    assert "step 330 differs in loss: 1.5 in the record, 1.2 now" in text

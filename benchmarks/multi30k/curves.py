"""Curves of recorded Multi30k runs: perplexity and BLEU of the validation set.

A record is the metrics.jsonl of a run, as it is or gzipped (`gzip -k9 RUN/metrics.jsonl`). The
picture has one line a record over the target tokens that it has trained on, so that runs with other
steps can be compared. The picture is drawn in an environment of its own, where matplotlib is put
when it is missing.

    .venv/bin/python benchmarks/multi30k/curves.py benchmarks/multi30k/records/*.jsonl.gz \
        [--picture FILE.png]
"""

import gzip
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.environments import draw
from trainer.record.metrics_file import read_metrics
from trainer.record.metrics_lines import Line, TrainLine, ValidationLine

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Curve:
    """The validations of a run.

    Attributes:
        tokens: target tokens seen before each validation, in millions.
        seconds: what all steps and validations took together.
    """

    name: str
    tokens: list[float]
    perplexity: list[float]
    bleu: list[float]
    seconds: float


def curve_of(record: Path) -> Curve:
    """Reads a record.

    Raises:
        TrainerError: a line is no line of a record.
    """
    lines = _lines_of(record)
    seen, seconds = 0, 0.0
    curve = Curve(record.name.partition(".")[0], [], [], [], 0.0)
    for line in lines:
        if isinstance(line, TrainLine):
            seen, seconds = line.target_tokens_seen, seconds + line.step_seconds
        elif isinstance(line, ValidationLine):
            seconds += line.seconds
            perplexity, bleu = (line.scores[name].value for name in ("perplexity", "bleu"))
            if perplexity is not None and bleu is not None:
                curve.tokens.append(seen / 1e6)
                curve.perplexity.append(perplexity)
                curve.bleu.append(bleu)
    return Curve(**{**asdict(curve), "seconds": seconds})


def _lines_of(record: Path) -> list[Line]:
    if record.suffix != ".gz":
        return read_metrics(record)
    with TemporaryDirectory() as folder:
        unpacked = Path(folder) / record.stem
        unpacked.write_bytes(gzip.decompress(record.read_bytes()))
        return read_metrics(unpacked)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parse_arguments(parser, smoke="{records}/enfr-seed-1.jsonl.gz")
    curves = [curve_of(record) for record in arguments.records]
    print(f"{'record':24}{'M tokens':>10}{'hours':>8}{'perplexity':>12}{'BLEU':>8}")
    for curve in curves:
        last = f"{curve.tokens[-1]:10.1f}{curve.seconds / 3600:8.2f}"
        print(f"{curve.name:24}{last}{curve.perplexity[-1]:12.3f}{curve.bleu[-1]:8.2f}")
    if arguments.picture is not None:
        text = json.dumps([asdict(curve) for curve in curves])
        draw(HERE / "plot.py", text, arguments.picture)


if __name__ == "__main__":
    main()

"""Recorded Multi30k runs: tokens, hours, and perplexity and BLEU of the last validation.

A record is the metrics.jsonl of a run, as it is or gzipped (`gzip -k9 RUN/metrics.jsonl`).

    .venv/bin/python benchmarks/multi30k/curves.py benchmarks/multi30k/records/*.jsonl.gz
"""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Line, TrainLine, ValidationLine


def row_of(record: Path) -> str:
    """Return the row of a record in the table.

    Raises:
        RunError: a line is no line of a record.
    """
    seen, seconds, tokens, scores = 0, 0.0, 0.0, (0.0, 0.0)
    for line in _lines_of(record):
        if isinstance(line, TrainLine):
            seen, seconds = line.target_tokens_seen, seconds + line.step_seconds
        elif isinstance(line, ValidationLine):
            seconds += line.seconds
            perplexity, bleu = (line.scores[name].value for name in ("perplexity", "bleu"))
            if perplexity is not None and bleu is not None:
                tokens, scores = seen / 1e6, (perplexity, bleu)
    name = record.name.partition(".")[0]
    return f"{name:24}{tokens:10.1f}{seconds / 3600:8.2f}{scores[0]:12.3f}{scores[1]:8.2f}"


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
    arguments = parse_arguments(parser, smoke="{records}/enfr-seed-1.jsonl.gz")
    print(f"{'record':24}{'M tokens':>10}{'hours':>8}{'perplexity':>12}{'BLEU':>8}")
    for record in arguments.records:
        print(row_of(record))


if __name__ == "__main__":
    main()

"""Replacement of Slurm's srun on one machine: start the command once for each node.

Like srun, it passes its standard input to all tasks, gives them their numbers, kills all if one
fails, and exits with the largest of their exit codes. It accepts only the options that the script
uses.
"""

import os
import subprocess
import sys
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread


def main() -> int:
    arguments = sys.argv[1:]
    first = next(n for n, word in enumerate(arguments) if not word.startswith("--"))
    options = dict(word[2:].partition("=")[::2] for word in arguments[:first])
    assert (options["input"], options["kill-on-bad-exit"]) == ("all", "1")
    tasks = [
        subprocess.Popen(
            arguments[first:],
            stdin=subprocess.PIPE,
            env={**os.environ, "SLURM_NODEID": str(number)},
        )
        for number in range(int(options["nodes"]))
    ]
    Thread(target=broadcast, args=[tasks], daemon=True).start()
    ended: SimpleQueue[int] = SimpleQueue()
    for task in tasks:
        Thread(target=lambda task=task: ended.put(task.wait()), daemon=True).start()
    codes = []
    for _ in tasks:
        codes.append(ended.get())
        if codes[-1]:
            for task in tasks:
                task.kill()
    return max(map(abs, codes))


def broadcast(tasks: "list[subprocess.Popen[bytes]]") -> None:
    for line in sys.stdin.buffer:
        for task in tasks:
            assert task.stdin
            with suppress(BrokenPipeError):
                task.stdin.write(line)
                task.stdin.flush()
    for task in tasks:
        assert task.stdin
        with suppress(BrokenPipeError):
            task.stdin.close()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

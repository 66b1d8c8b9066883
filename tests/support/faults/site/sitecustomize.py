"""Stop a process at a moment that a test has requested, so that the test can apply a fault there.

Python imports this module at the start of every process that has its folder on PYTHONPATH. The
module does nothing unless TRANSLOOM_FAULTS names a folder. A test requests a moment by an empty
file in this folder::

    wanted.MOMENT.rank-R.step-S      the request: stop rank R in this step ("any" for any step)
    reached.MOMENT.rank-R.step-S.P   the stopped process with id P; it has renamed the request, so
                                     only one process stops

At moments of the driver, R is "driver". At those of a data worker, R is "worker", and S is the
first micro-batch that is requested from it. The process continues when the test has removed the
file. Other files have these effects:

    nan.rank-R.step-S    the step's gradients are NaN in the first slot of the rank, also in
                         repetitions; the file remains
    slow.rank-R          contains the seconds that the rank sleeps in each pass; the file remains
    slow.window          contains the number of steps that a rank, when it starts, is set to
                         compare to find slow ranks
    skip.rank-R.step-S   the rank skips the step's all-gathers, and removes the file
    flip.rank-R.step-S   a bit of the rank's weights flips in memory; the rank removes the file
    sum.rank-R.step-S    contains the number of times that the step's sum of gradients is wrong,
                         because an element of the rank's share changes on its way

The variable TRANSLOOM_SICK_NODE lists the faults of a node, in the environment of its `ray start`:
wrong-bits, unsteady-bits, full-disk, wrong-clock.

This module uses only the standard library, because every process of Ray imports it.
"""

import functools
import importlib
import os
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("TRANSLOOM_FAULTS", ""))
SICK = os.environ.get("TRANSLOOM_SICK_NODE", "").split()
LONGEST_STOP_SECONDS = 600.0


class Here:
    """Rank of this process, and its current step."""

    rank = "driver"
    phase = "start"
    step = 0
    slots_done = 0
    products = 0
    share_is_sent = False  # whether a changed share was sent since the step's first pass
    left_out = None


def reach(moment, step, who=None):
    for named in (step, "any"):
        name = f"{moment}.rank-{Here.rank if who is None else who}.step-{named}"
        reached = FOLDER / f"reached.{name}.{os.getpid()}"
        try:
            (FOLDER / f"wanted.{name}").rename(reached)
        except FileNotFoundError:
            continue
        deadline = time.monotonic() + LONGEST_STOP_SECONDS
        while reached.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def joining(process_group):
    """Stop before a rank joins the process group."""

    @functools.wraps(process_group)
    def wrapper(placement, *arguments):
        Here.rank, Here.phase = placement.rank, "start"
        Here.step = Here.slots_done = 0
        reach("joining", "any")
        return process_group(placement, *arguments)

    return wrapper


def loading(restore):
    """Stop before a rank loads the state of a checkpoint."""

    @functools.wraps(restore)
    def wrapper(*arguments):
        reach("loading", "any")
        return restore(*arguments)

    return wrapper


def position(progress):
    @functools.wraps(progress)
    def wrapper(mailbox, phase, step, where=""):
        Here.phase, Here.step = phase, step
        return progress(mailbox, phase, step, where)

    return wrapper


def flip_bit(engine):
    """Flip a high bit of the mantissa of one weight, if a test has requested it for this step."""
    ordered = FOLDER / f"flip.rank-{Here.rank}.step-{Here.step}"
    if ordered.exists():
        ordered.unlink()
        named = engine.module.named_parameters()
        weight = next(p for name, p in named if ".layers." in name and p.dim() == 2)
        weight.data.view(-1).view(importlib.import_module("torch").int32)[100:101] ^= 2**20


def step(forward_backward):
    """Stop after a slot of a rank that is not its last one in the step."""

    @functools.wraps(forward_backward)
    def wrapper(engine, batch, *, units_global, is_accumulation_boundary, is_dummy, **others):
        flip_bit(engine)
        if Here.slots_done == 0:
            Here.share_is_sent = False
        slow = FOLDER / f"slow.rank-{Here.rank}"
        if slow.exists():
            time.sleep(float(slow.read_text()))
        poisoned = FOLDER / f"nan.rank-{Here.rank}.step-{Here.step}"
        if Here.slots_done == 0 and poisoned.exists():
            units_global = float("nan")
        result = forward_backward(
            engine,
            batch,
            units_global=units_global,
            is_accumulation_boundary=is_accumulation_boundary,
            is_dummy=is_dummy,
            **others,
        )
        Here.slots_done = 0 if is_accumulation_boundary else Here.slots_done + 1
        if not is_accumulation_boundary:
            reach("step", Here.step)
        return result

    return wrapper


def all_reduce(add):
    """Change a rank's share of a sum before it is added, like a faulty network."""

    @functools.wraps(add)
    def wrapper(tensor, *arguments, **options):
        is_gradient = tensor.is_floating_point() and tensor.itemsize < 8 and tensor.numel() >= 1000
        if is_gradient and is_share_changed():
            tensor.view(-1)[tensor.numel() // 2] += tensor.abs().max()
        return add(tensor, *arguments, **options)

    return wrapper


def gather(all_gather):
    """Skip a collective on this rank, if a test has requested it for this step."""

    @functools.wraps(all_gather)
    def wrapper(*arguments, **options):
        ordered = FOLDER / f"skip.rank-{Here.rank}.step-{Here.step}"
        if ordered.exists():
            ordered.unlink()
            Here.left_out = Here.step
        return None if Here.left_out == Here.step else all_gather(*arguments, **options)

    return wrapper


def is_share_changed():
    ordered = FOLDER / f"sum.rank-{Here.rank}.step-{Here.step}"
    if Here.share_is_sent or Here.phase != "step" or not ordered.exists():
        return False
    Here.share_is_sent = True
    left = int(ordered.read_text()) - 1
    ordered.write_text(str(left)) if left else ordered.unlink()
    return True


def compared_steps(window):
    file = FOLDER / "slow.window"
    return int(file.read_text()) if file.exists() else window


def validation(greedy_search):
    """Stop at a rank's first batch of a validation."""

    @functools.wraps(greedy_search)
    def wrapper(*arguments):
        reach("validation", Here.step)
        return greedy_search(*arguments)

    return wrapper


def copy(owned_fragments):
    """Stop while a rank's state is being copied."""

    @functools.wraps(owned_fragments)
    def wrapper(*arguments):
        if Here.phase == "save":
            reach("copy", Here.step)
        return owned_fragments(*arguments)

    return wrapper


def write(write_state_file):
    """Stop after the beginning of a rank's file has been written."""

    @functools.wraps(write_state_file)
    def wrapper(path, sizes, data):
        def late():
            reach("write", step_of(path.parent))
            yield from data

        return write_state_file(path, sizes, late())

    return wrapper


def memory_copy(copy_to_slot):
    """Stop before a rank copies its state to its node's memory."""

    @functools.wraps(copy_to_slot)
    def wrapper(writer, slot):
        reach("memory-copy", slot.step)
        return copy_to_slot(writer, slot)

    return wrapper


def pull(copy_from_node):
    """Stop before a node's agent copies a memory file of another node."""

    @functools.wraps(copy_from_node)
    def wrapper(memory, source, file):
        reach("pull", "any", "agent")
        return copy_from_node(memory, source, file)

    return wrapper


def commit(sync_to_disk):
    """Stop between the driver's write of a checkpoint's header and its commit."""

    @functools.wraps(sync_to_disk)
    def wrapper(path):
        if path.name.startswith("step-"):
            reach("commit", step_of(path))
        return sync_to_disk(path)

    return wrapper


def fetch(fetch_of_reader):
    """Stop when a data worker gets a request for some of a window's micro-batches."""

    @functools.wraps(fetch_of_reader)
    def wrapper(reader, epoch, window, start, stop):
        reach("fetch", start, "worker")
        return fetch_of_reader(reader, epoch, window, start, stop)

    return wrapper


def step_of(partial):
    return int(partial.name.split("-")[1])


def pause(wait_before_retry):
    """Shorten the pause before an unreadable file is read again to a hundredth."""

    @functools.wraps(wait_before_retry)
    def wrapper(delay_seconds, what, reason):
        return wait_before_retry(delay_seconds / 100, what, reason)

    return wrapper


def product(multiply):
    """Compute one wrong bit on a sick node, always or only when a product is repeated."""

    @functools.wraps(multiply)
    def wrapper(left, right):
        result = multiply(left, right)
        Here.products += 1
        if "wrong-bits" in SICK or ("unsteady-bits" in SICK and Here.products > 1):
            result.view(-1)[:1].mul_(1 + 2**-23)
        return result

    return wrapper


def storage(measure_storage):
    """Report a megabyte of free storage on a sick node."""

    @functools.wraps(measure_storage)
    def wrapper(folder):
        figures = measure_storage(folder)
        return type(figures)(free_bytes=10**6) if "full-disk" in SICK else figures

    return wrapper


def clock(clock_of_node):
    """Set the clock of a sick node a minute ahead."""

    @functools.wraps(clock_of_node)
    def wrapper():
        return clock_of_node() + (60 if "wrong-clock" in SICK else 0)

    return wrapper


HOOKS = {
    "cluster.node_check.matrix_product": {"multiply": product},
    "cluster.node_check.measure": {"clock": clock, "measure_storage": storage},
    "torch.distributed.distributed_c10d": {
        "all_reduce": all_reduce,
        "all_gather_into_tensor": gather,
    },
    "trainer.process.distributed": {"process_group": joining},
    "trainer.state.restore": {"restore": loading},
    "cluster.ranks.reports": {"Mailbox.progress": position},
    "trainer.zero.engine": {"TrainingEngine.forward_backward": step},
    "trainer.training.slow_ranks": {"WINDOW": compared_steps},
    "trainer.tasks.translation": {"greedy_search": validation},
    "trainer.zero.fragments": {"owned_fragments": copy},
    "run_store.checkpoints.state_file": {"write_state_file": write},
    "trainer.state.memory_writer": {"MemoryWriter._copy": memory_copy},
    "cluster.ranks.node_memory": {"NodeMemory.copy": pull},
    "run_store.checkpoints.commit": {"sync_to_disk": commit},
    "data_pipeline.batching.window": {"WindowReader.fetch": fetch},
    "data_pipeline.storage.remote": {"wait_before_retry": pause},
}


if "TRANSLOOM_FAULTS" in os.environ:
    sys.path.append(str(Path(__file__).parents[2] / "module_hooks"))
    from module_hooks import Finder

    sys.meta_path.insert(0, Finder(HOOKS))

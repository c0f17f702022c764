"""What the operations of a trace do, whether they are durable, and which faults to try at them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from fault_trials import BROKEN, FULL, KILL, TEAR, Operation

Tree = dict[str, int | None]
"""Size of each file by path; None for folders."""


def tree(folder: Path) -> Tree:
    """List everything below a folder."""
    return {str(path): None if path.is_dir() else path.stat().st_size for path in sorted(folder.rglob("*"))}


def replay(before: Tree, trace: Sequence[Operation]) -> Tree:
    """Apply the operations of a trace to a tree. The result equals the real tree only if the trace missed none."""
    found = dict(before)
    for operation in trace:
        path, other = operation.path, operation.other
        match operation.name:
            case "create":
                found[path] = 0
            case "mkdir":
                if path not in found:
                    found[path] = None
            case "write":
                found[path] = (found[path] or 0) + operation.bytes
            case "truncate":
                found[path] = operation.bytes
            case "unlink" | "rmdir":
                found.pop(path, None)
            case "rename":
                moved = [name for name in found if name == path or name.startswith(f"{path}/")]
                found = {name: size for name, size in found.items() if name != other} | {
                    other + name.removeprefix(path): found[name] for name in moved
                }
                for name in moved:
                    found.pop(name)
    return found


def unsafe_renames(trace: Sequence[Operation]) -> list[str]:
    """Return renames that are not durable.

    A file renamed before it is synced may be empty after a power cut; without a sync of the folder afterwards, the
    rename may be undone.
    """
    problems, unsynced = [], set()
    for number, operation in enumerate(trace):
        if operation.name == "write":
            unsynced.add(operation.path)
        elif operation.name == "sync":
            unsynced.discard(operation.path)
        elif operation.name == "rename":
            if any(path == operation.path or path.startswith(f"{operation.path}/") for path in unsynced):
                problems.append(f"{operation.path} is renamed before it is synced")
            folder = os.path.dirname(operation.other)  # noqa: PTH120
            later = {(after.name, after.path) for after in trace[number:]}
            if ("sync", folder) not in later:
                problems.append(f"{folder} is not synced after {operation.other} was renamed")
    return problems


def faults_of(trace: Sequence[Operation], *, everything: bool) -> list[tuple[int, int]]:
    """Return fault and operation of each trial.

    With `everything`, SIGKILL comes before each operation and halfway through each write, and each operation fails
    with ENOSPC and with EIO. Otherwise trials that repeat another one are left out:

    - SIGKILL after a sync leaves the same files as SIGKILL before it.
    - Errors alternate between ENOSPC and EIO.
    - The first file that is published in a folder gets all faults. Each later one, which the same code writes, gets
      one SIGKILL and one error, at the next step in turn.
    """
    steps = {} if everything else later_publications(trace)
    trials, choices = [], defaultdict(list)
    for number, operation in enumerate(trace):
        kills = [(KILL, number)] if everything or not number or trace[number - 1].name != "sync" else []
        if operation.name == "write" and operation.bytes > 1:
            kills.append((TEAR, number))
        errors = [(FULL, number), (BROKEN, number)]
        if operation.name in {"unlink", "rmdir", "truncate"}:  # these free space
            errors = errors[1:]
        if not everything:
            errors = [errors[(number + 1) % len(errors)]]
        for kind, found in (("kill", kills), ("error", errors)):
            (choices[kind, *steps[number]] if number in steps else trials).extend(found)
    for (_, _, turn), found in choices.items():
        trials.append(found[turn % len(found)])
    return sorted(trials, key=lambda trial: trial[1])


def later_publications(trace: Sequence[Operation]) -> dict[int, tuple[str, int]]:
    """Find the operations that publish a file in a folder in which another file was published before.

    Returns:
        Folder and turn (1 for the second file of the folder) by the number of the operation.
    """
    turns: Counter[str] = Counter()
    found = {}
    for start, operation in enumerate(trace):
        if operation.name != "create" or not operation.path.endswith(".tmp"):
            continue
        folder = os.path.dirname(operation.path)  # noqa: PTH120
        steps = [number for number in range(start, len(trace)) if trace[number].path == operation.path]
        rest = range(steps[-1], len(trace))
        steps += [number for number in rest if (trace[number].name, trace[number].path) == ("sync", folder)][:1]
        if turns[folder]:
            found |= dict.fromkeys(steps, (folder, turns[folder]))
        turns[folder] += 1
    return found

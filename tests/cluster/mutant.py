"""Makes one sweep over code with a seeded bug: `python -m tests.cluster.mutant NAME SEEDS PROCESSES`, answers in JSON.

Nothing that is mutated may be imported before `apply`: that is why this is a process of its own with few imports.
"""

import importlib
import importlib.util
import json
import sys

from tests.cluster.mutations import MUTATIONS, Mutation


def apply(mutation: Mutation) -> None:
    """Puts the mutated module into the place of the real one."""
    parent_name, _, name = mutation.module.rpartition(".")
    parent = importlib.import_module(parent_name)
    spec = importlib.util.find_spec(mutation.module)
    if spec is None or spec.origin is None or mutation.module in sys.modules:
        raise RuntimeError(f"{mutation.module} is not there, or too early there")
    with open(spec.origin, encoding="utf-8") as file:
        source = file.read()
    if source.count(mutation.old) != 1:
        raise RuntimeError(f"{mutation.module} has {source.count(mutation.old)} times: {mutation.old}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[mutation.module] = module
    exec(compile(source.replace(mutation.old, mutation.new), spec.origin, "exec"), module.__dict__)
    setattr(parent, name, module)


def main(name: str, seeds: int, processes: int) -> None:
    apply(MUTATIONS[name])
    from tests.cluster.sweep import sweep

    result = sweep(1, seeds, processes=processes, stop_at=1)
    first = result.broken[0] if result.broken else None
    print(json.dumps({
        "seed": first.seed if first else None,
        "invariant": first.invariant if first else None,
        "runs": result.runs,
    }))
    if first:
        print(first.violation, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

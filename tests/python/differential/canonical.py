"""Upstream's state and messages in the form in which they are compared: the other half of ``snapshot.rs``."""

from __future__ import annotations

from collections import defaultdict

from ordered import OrderedSet, TaskState, WorkerState


def names(items, attribute: str) -> list[str]:
    """What sets of tasks, workers or clients hold, sorted."""
    if not items:
        return []
    if isinstance(items, OrderedSet):
        if items.names is None:
            items.names = sorted(getattr(item, attribute) for item in items)
        return items.names
    return sorted(getattr(item, attribute) for item in items)


def keys(tasks) -> list[str]:
    return names(tasks, "key")


def addresses(workers) -> list[str]:
    return names(workers, "address")


def task(ts: TaskState) -> dict:
    return {
        "state": ts.state,
        "on": ts.processing_on.address if ts.processing_on else None,
        "who_has": addresses(ts.who_has),
        "who_wants": names(ts.who_wants, "client_key"),
        "dependencies": keys(ts.dependencies),
        "dependents": keys(ts.dependents),
        "waiting_on": keys(ts.waiting_on),
        "waiters": keys(ts.waiters),
        "priority": list(ts.priority) if ts.priority else None,
        "retries": ts.retries,
        "suspicious": ts.suspicious,
        "nbytes": ts.nbytes,
        "actor": ts.actor,
        "type": ts.type,
        "blame": ts.exception_blame.key if ts.exception_blame else None,
        "erred_on": sorted(ts.erred_on) if ts.erred_on else [],
        "lost": ts.has_lost_dependencies,
        "group": str(ts.group.name),
        "prefix": ts.prefix.name,
    }


def worker(scheduler, ws: WorkerState) -> dict:
    return {
        "status": ws.status.name,
        "processing": keys(ws.processing),
        "long_running": keys(ws.long_running),
        "has_what": keys(ws.has_what),
        "nbytes": ws.nbytes,
        "occupancy": ws.occupancy,
        "idle": ws.address in scheduler.idle,
        "saturated": ws in scheduler.saturated,
        "used_resources": {name: amount for name, amount in ws.used_resources.items() if amount},
        "actors": len(ws.actors),
    }


def thief_address(scheduler, thief: WorkerState) -> str | None:
    return thief.address if scheduler.workers.get(thief.address) is thief else None


def totals(scheduler) -> dict:
    return {
        "nthreads": scheduler.total_nthreads,
        "memory": scheduler.total_memory,
        "occupancy": scheduler.total_occupancy,
        "bandwidth": scheduler.bandwidth,
        "queued": len(scheduler.queued),
        "unrunnable": keys(scheduler.unrunnable),
        "clients": sorted(scheduler.clients),
        "in_flight": sorted(
            [ts.key, info["victim"].address, thief_address(scheduler, info["thief"])]
            for ts, info in scheduler.in_flight.items()
        ),
        "groups": {
            str(name): {state: count for state, count in tg.states.items() if count}
            for name, tg in scheduler.task_groups.items()
        },
        "prefixes": {
            name: [tp.duration_average if tp.duration_average >= 0 else None, tp.suspicious]
            for name, tp in scheduler.task_prefixes.items()
        },
    }


def exception(error) -> str:
    if isinstance(error, str):
        return error
    return "none" if error is None else "the scheduler's"


def to_worker(msg: dict) -> list[tuple[str, list]]:
    """What a message says of each key."""
    op = msg["op"]
    if op == "compute-task":
        who_has = {key: sorted(on) for key, on in msg["who_has"].items()}
        resources = msg["resource_restrictions"] or {}
        return [(msg["key"], [op, list(msg["priority"]), who_has, msg["nbytes"], resources, msg["actor"]])]
    if op in ("free-keys", "remove-replicas"):
        return [(key, [op]) for key in msg["keys"]]
    if op == "refresh-who-has":
        return [(key, [op, sorted(on)]) for key, on in msg["who_has"].items()]
    if op == "acquire-replicas":
        return [(key, [op, sorted(on), msg["nbytes"][key]]) for key, on in msg["who_has"].items()]
    if op == "steal-request":
        return [(msg["key"], [op])]
    if op == "worker-status-change":
        return [("", [op, msg["status"]])]
    if op == "remove-worker":
        return [(msg["worker"], [op])]
    if op == "close":
        return [("", [op])]
    return [("", ["unexpected", str(msg)])]


def to_client(msg: dict) -> list[tuple[str, list]]:
    op = msg["op"]
    if op == "key-in-memory":
        on = msg.get("workers")
        return [(msg["key"], [op, "type" in msg, sorted(on) if on is not None else None])]
    if op == "task-erred":
        return [(msg["key"], [op, exception(msg["exception"])])]
    if op in ("lost-data", "task-retried"):
        return [(msg["key"], [op])]
    if op == "cancelled-keys":
        return [(key, [op, msg.get("reason")]) for key in msg["keys"]]
    if op == "restart":
        return [("", [op])]
    return [("", ["unexpected", str(msg)])]


def sent(streams: dict, describe) -> dict[str, list]:
    """Messages per receiver and key, in order; takes them from the buffers."""
    result: defaultdict[str, list] = defaultdict(list)
    for receiver, stream in streams.items():
        messages, stream.buffer = stream.buffer, []
        for msg in messages:
            for about, description in describe(msg):
                result[f"{receiver}|{about}"].append(description)
    return dict(result)

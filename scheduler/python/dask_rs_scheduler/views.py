"""Tasks, workers, clients, groups and prefixes as Python code on the scheduler sees them.

They are pictures of one moment: what an attribute refers to is asked for when it is looked at.
"""

from collections.abc import Mapping
from types import SimpleNamespace

from distributed.core import Status


class Picture:
    """Facts by name. Equal and hashed by its own name, as upstream's objects are by identity."""

    kind = ""
    key_field = ""

    def __init__(self, scheduler, facts):
        self._scheduler = scheduler
        self._facts = facts

    def __getattr__(self, name):
        if not name.startswith("_") and name in self._facts:
            return self._facts[name]
        raise AttributeError(f"dask-rs: a {self.kind} of the native scheduler has no {name!r}")

    def __eq__(self, other):
        return type(self) is type(other) and self._name == other._name

    def __hash__(self):
        return hash(self._name)

    @property
    def _name(self):
        return self._facts[self.key_field]


class TaskState(Picture):
    """A task (``distributed.scheduler.TaskState``)."""

    kind, key_field = "task", "key"

    def __repr__(self):
        return f"<TaskState {self.key!r} {self.state}>"

    def __bool__(self):
        return True

    def _tasks(self, name):
        return set(self._scheduler.tasks.several(self._facts[name]))

    dependencies = property(lambda self: self._tasks("dependencies"))
    dependents = property(lambda self: self._tasks("dependents"))
    waiting_on = property(lambda self: self._tasks("waiting_on"))
    waiters = property(lambda self: self._tasks("waiters"))
    group_key = property(lambda self: self._facts["group"])
    prefix_key = property(lambda self: self._facts["prefix"])
    run_spec = property(lambda self: self._scheduler.get_runspec(self.key))

    @property
    def who_has(self):
        return {self._scheduler.workers[address] for address in self._facts["who_has"]}

    @property
    def who_wants(self):
        return {self._scheduler.clients[client] for client in self._facts["who_wants"]}

    @property
    def processing_on(self):
        address = self._facts["processing_on"]
        return self._scheduler.workers[address] if address else None

    @property
    def exception_blame(self):
        key = self._facts["exception_blame"]
        return None if key is None else self._scheduler.tasks[key]

    @property
    def prefix(self):
        return self._scheduler.task_prefixes[self._facts["prefix"]]

    @property
    def group(self):
        return self._scheduler.task_groups[self._facts["group"]]

    def get_nbytes(self):
        """Bytes of the result, or a guess while it is unknown."""
        return self.nbytes if self.nbytes >= 0 else 1024


class WorkerState(Picture):
    """A worker (``distributed.scheduler.WorkerState``)."""

    kind, key_field = "worker", "address"

    def __repr__(self):
        return f"<WorkerState {self.address!r}, name: {self.name}, status: {self.status.name}>"

    @property
    def status(self):
        return Status[self._facts["status"]]

    @property
    def memory(self):
        return SimpleNamespace(**self._facts["memory"])

    def _keys(self, op):
        keys = self._scheduler.ask({"op": op, "workers": [self.address]})[self.address]
        return dict.fromkeys(self._scheduler.tasks.several(keys))

    processing = property(lambda self: self._keys("processing"))
    has_what = property(lambda self: self._keys("has_what"))

    def identity(self):
        """The worker as clients see it."""
        return self._scheduler.identity()["workers"][self.address]


class ClientState(Picture):
    """A client (``distributed.scheduler.ClientState``)."""

    kind, key_field = "client", "client_key"

    def __repr__(self):
        return f"<Client {self.client_key!r}>"

    @property
    def wants_what(self):
        keys = self._scheduler.ask({"op": "dask-rs-wants", "client": self.client_key})
        return set(self._scheduler.tasks.several(keys))


class TaskGroup(Picture):
    """A group of tasks (``distributed.scheduler.TaskGroup``)."""

    kind, key_field = "task group", "name"

    def __repr__(self):
        return f"<{self.name}: {self.states}>"

    def __len__(self):
        return sum(self.states.values())

    @property
    def prefix(self):
        return self._scheduler.task_prefixes[self._facts["prefix_name"]]


class TaskPrefix(Picture):
    """Tasks of one name (``distributed.scheduler.TaskPrefix``)."""

    kind, key_field = "task prefix", "name"

    def __repr__(self):
        return f"<{self.name}: {self.states}>"

    @property
    def groups(self):
        return {group for group in self._scheduler.task_groups.values() if group.prefix_name == self.name}


class Table(Mapping):
    """All of one kind, by name; asked for anew each time."""

    def __init__(self, scheduler, what, picture):
        self._scheduler = scheduler
        self._what = what
        self._picture = picture

    def _ask(self, names=None):
        facts = self._scheduler.ask({"op": "dask-rs-facts", "what": self._what, "names": names})
        return [self._picture(self._scheduler, one) for one in facts]

    def _found(self, names):
        return self._ask(names)

    def __getitem__(self, name):
        found = self._found([name])
        if not found:
            raise KeyError(name)
        return found[0]

    def __contains__(self, name):
        try:
            return bool(self._found([name]))
        except TypeError:
            return False

    def __iter__(self):
        return iter(self._scheduler.ask({"op": "dask-rs-names", "what": self._what}))

    def __len__(self):
        return self._scheduler.ask({"op": "dask-rs-count", "what": self._what})

    def values(self):
        """All pictures at once."""
        return self._ask()

    def items(self):
        """All names and pictures at once."""
        return [(picture._name, picture) for picture in self._ask()]

    def __repr__(self):
        return f"<{len(self)} {self._what}>"


class Tasks(Table):
    """All tasks. While a plugin hears of a transition, the task it is about is as that left it."""

    def __init__(self, scheduler):
        super().__init__(scheduler, "tasks", TaskState)
        self.now = {}

    def several(self, keys):
        """The tasks of these keys that there are."""
        return self._found(list(keys))

    def _found(self, keys):
        asked = [key for key in keys if key not in self.now]
        known = [self.now[key] for key in keys if key in self.now]
        return known + (self._ask(asked) if asked else [])

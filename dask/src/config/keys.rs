//! The keys that this engine has a meaning for, with their defaults.

use super::DaskConfig;
use super::merge::{find, remove, set};
use super::node::{Map, Node, Origin, Setting};
use super::said::Said;
use super::yaml;

/// How the value of a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `5 minutes`, `300ms`, or a number of seconds.
    Duration,
    /// `64 MiB`, `5GB`, or a number of bytes.
    Bytes,
    /// The same, or `false` for no bound.
    BytesOrOff,
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Count,
    /// A number above zero, `.inf` allowed.
    Positive,
    /// A share between 0 and 1, or `false` for never.
    Fraction,
    /// Any text.
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of texts, or one text.
    Texts,
    /// Names with a duration each.
    Durations,
    /// Names with a number each.
    Numbers,
    /// Names with a text each.
    Entries,
    /// A list of mappings.
    List,
}

impl Kind {
    /// As the documentation calls it.
    pub fn name(self) -> String {
        match self {
            Kind::Duration => "duration".to_owned(),
            Kind::Bytes => "bytes".to_owned(),
            Kind::BytesOrOff => "bytes or false".to_owned(),
            Kind::Truth => "true or false".to_owned(),
            Kind::Count => "whole number".to_owned(),
            Kind::Positive => "positive number".to_owned(),
            Kind::Fraction => "fraction or false".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::OneOf(choices) => choices.join(", "),
            Kind::Texts => "texts".to_owned(),
            Kind::Durations => "names and durations".to_owned(),
            Kind::Numbers => "names and numbers".to_owned(),
            Kind::Entries => "names and texts".to_owned(),
            Kind::List => "list of mappings".to_owned(),
        }
    }

    /// What is wrong with the value of `key`, if anything is.
    pub(super) fn complaint(self, config: &DaskConfig, key: &'static str) -> Option<String> {
        let each = |read: fn(&Said<'_>) -> Result<(), String>| match config.entries(key) {
            Ok(entries) => entries.iter().find_map(|(_, said)| read(said).err()),
            Err(error) => Some(error),
        };
        match self {
            Kind::Durations => return each(|said| said.duration().map(drop)),
            Kind::Numbers => return each(|said| said.number().map(drop)),
            Kind::Entries => return each(|_| Ok(())),
            _ => {}
        }
        let said = config.key(key)?;
        match self {
            Kind::Duration => said.duration().err(),
            Kind::Bytes => said.bytes().err(),
            Kind::BytesOrOff => said.bytes_or_off().err(),
            Kind::Truth => said.truth().err(),
            Kind::Count => said.count().err(),
            Kind::Positive => said.positive().err(),
            Kind::Fraction => said.fraction().err(),
            Kind::OneOf(choices) => said.one_of(choices).err(),
            Kind::Texts => said.texts().err(),
            Kind::Text | Kind::Durations | Kind::Numbers | Kind::Entries | Kind::List => None,
        }
    }
}

/// One setting of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name with dots.
    pub name: &'static str,
    /// How it is read.
    pub kind: Kind,
    /// The default, as YAML.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default, about }
}

/// How connections are made; what stands before the `://` of an address.
pub const SCHEMES: &[&str] = &["tcp", "tls", "ws", "wss"];

/// What memory is measured by.
pub const MEASURES: &[&str] = &["optimistic", "process", "managed"];

/// Every key that is read. All but `distributed.scheduler.policy` and `distributed.scheduler.http.token` are
/// dask's; the defaults are dask's too, but for the routes, most of which are always there.
pub const KEYS: &[Key] = &[
    key("scheduler-address", Kind::Text, "null", "the scheduler that workers and `dask explain` connect to"),
    key(
        "temporary-directory",
        Kind::Text,
        "null",
        "where workers make `dask-scratch-space`, unless told `--local-directory`",
    ),
    key("logging", Kind::Entries, "{distributed: info}", "levels of loggers by name"),
    key(
        "distributed.scheduler.policy",
        Kind::OneOf(&["native", "upstream"]),
        "native",
        "how tasks are placed, held back and stolen",
    ),
    key(
        "distributed.scheduler.allowed-failures",
        Kind::Count,
        "3",
        "deaths of workers that a task may be part of before it errs",
    ),
    key(
        "distributed.scheduler.bandwidth",
        Kind::Bytes,
        "100000000",
        "bytes per second between workers until some are measured",
    ),
    key("distributed.scheduler.blocked-handlers", Kind::Texts, "[]", "RPC operations that are refused"),
    key(
        "distributed.scheduler.contact-address",
        Kind::Text,
        "null",
        "the address told to others, where it is not the one listened on",
    ),
    key(
        "distributed.scheduler.default-data-size",
        Kind::Bytes,
        "1kiB",
        "assumed size of results whose size is not known",
    ),
    key(
        "distributed.scheduler.events-cleanup-delay",
        Kind::Duration,
        "1h",
        "how long the events of clients and workers that left are kept",
    ),
    key("distributed.scheduler.idle-timeout", Kind::Duration, "null", "close after this long without work"),
    key(
        "distributed.scheduler.no-workers-timeout",
        Kind::Duration,
        "null",
        "tasks that no worker can run err after this long",
    ),
    key("distributed.scheduler.work-stealing", Kind::Truth, "true", "idle workers take tasks from busy ones"),
    key("distributed.scheduler.work-stealing-interval", Kind::Duration, "1s", "time between two rounds of that"),
    key("distributed.scheduler.worker-saturation", Kind::Positive, "1.1", "root-ish tasks sent per thread of a worker"),
    key(
        "distributed.scheduler.rootish-taskgroup",
        Kind::Count,
        "5",
        "root-ish groups depend on fewer groups than this",
    ),
    key(
        "distributed.scheduler.rootish-taskgroup-dependencies",
        Kind::Count,
        "5",
        "... with fewer tasks than this together",
    ),
    key(
        "distributed.scheduler.worker-ttl",
        Kind::Duration,
        "5 minutes",
        "silence after which a worker is taken for dead; null for never",
    ),
    key("distributed.scheduler.preload", Kind::Texts, "[]", "Python modules loaded beside the scheduler"),
    key("distributed.scheduler.preload-argv", Kind::Texts, "[]", "arguments for them"),
    key(
        "distributed.scheduler.http.routes",
        Kind::Texts,
        "[]",
        "with `distributed.http.scheduler.api` in it, anybody may retire workers over HTTP",
    ),
    key("distributed.scheduler.http.token", Kind::Text, "null", "what callers show to retire workers over HTTP"),
    key(
        "distributed.scheduler.dashboard.status.task-stream-length",
        Kind::Count,
        "1000",
        "of the pages' task stream; 25 parts of tasks are kept for each",
    ),
    key(
        "distributed.scheduler.dashboard.tasks.task-stream-length",
        Kind::Count,
        "100000",
        "tasks kept for `get_task_stream`, once somebody has asked",
    ),
    key(
        "distributed.scheduler.dashboard.tls.cert",
        Kind::Text,
        "null",
        "the certificate of the scheduler's and the workers' pages, which are then served over https alone",
    ),
    key("distributed.scheduler.dashboard.tls.key", Kind::Text, "null", "its key; in the certificate's file when null"),
    key(
        "distributed.scheduler.unknown-task-duration",
        Kind::Duration,
        "500ms",
        "assumed duration of tasks of which none has run",
    ),
    key(
        "distributed.scheduler.default-task-durations",
        Kind::Durations,
        "{rechunk-split: 1us, split-shuffle: 1us, split-taskshuffle: 1us, split-stage: 1us}",
        "assumed durations by name of the function",
    ),
    key("distributed.scheduler.validate", Kind::Truth, "false", "check the whole state after every event; slow"),
    key(
        "distributed.scheduler.active-memory-manager.start",
        Kind::Truth,
        "true",
        "run the active memory manager from the start",
    ),
    key("distributed.scheduler.active-memory-manager.interval", Kind::Duration, "2s", "time between two of its rounds"),
    key(
        "distributed.scheduler.active-memory-manager.measure",
        Kind::OneOf(MEASURES),
        "optimistic",
        "what it balances by",
    ),
    key(
        "distributed.scheduler.active-memory-manager.policies",
        Kind::List,
        "[{class: distributed.active_memory_manager.ReduceReplicas}]",
        "whether `ReduceReplicas` runs; other classes are Python's and not run",
    ),
    key("distributed.worker.preload", Kind::Texts, "[]", "Python modules loaded by workers' Python processes"),
    key("distributed.worker.preload-argv", Kind::Texts, "[]", "arguments for them"),
    key("distributed.worker.resources", Kind::Numbers, "{}", "resources of each worker"),
    key("distributed.worker.lifetime.duration", Kind::Duration, "null", "close after this long"),
    key("distributed.worker.lifetime.stagger", Kind::Duration, "0 seconds", "random part of that, in either direction"),
    key("distributed.worker.lifetime.restart", Kind::Truth, "false", "start again afterwards"),
    key("distributed.worker.connections.outgoing", Kind::Count, "50", "transfers to this worker at the same time"),
    key(
        "distributed.worker.transfer.message-bytes-limit",
        Kind::Bytes,
        "50MB",
        "most bytes asked for in one request, except for its first key",
    ),
    key(
        "distributed.worker.transfer.shared-memory",
        Kind::Truth,
        "true",
        "copy large values from the memory of workers on this machine, of the same user",
    ),
    key("distributed.worker.validate", Kind::Truth, "false", "check the worker's state after every event; slow"),
    key(
        "distributed.worker.memory.transfer",
        Kind::Fraction,
        "0.10",
        "share of the limit that may be on its way to a worker",
    ),
    key(
        "distributed.worker.memory.target",
        Kind::Fraction,
        "0.60",
        "share of values in memory above which the longest unused go to disk",
    ),
    key(
        "distributed.worker.memory.spill",
        Kind::Fraction,
        "0.70",
        "share of the process above which values go to disk",
    ),
    key(
        "distributed.worker.memory.pause",
        Kind::Fraction,
        "0.80",
        "share of the process above which nothing new starts",
    ),
    key(
        "distributed.worker.memory.terminate",
        Kind::Fraction,
        "0.95",
        "share of the process above which the nanny ends it",
    ),
    key("distributed.worker.memory.max-spill", Kind::BytesOrOff, "false", "most bytes on disk"),
    key(
        "distributed.worker.memory.spill-compression",
        Kind::OneOf(&["auto", "lz4", "zstd", "false"]),
        "auto",
        "compression of files",
    ),
    key(
        "distributed.worker.memory.recent-to-old-time",
        Kind::Duration,
        "30s",
        "unmanaged memory that stays this long counts",
    ),
    key("distributed.nanny.preload", Kind::Texts, "[]", "Python modules loaded by nannies' Python processes"),
    key("distributed.nanny.preload-argv", Kind::Texts, "[]", "arguments for them"),
    key("distributed.nanny.environ", Kind::Entries, "{}", "variables of workers' processes"),
    key(
        "distributed.nanny.pre-spawn-environ",
        Kind::Entries,
        "{MALLOC_TRIM_THRESHOLD_: 65536, OMP_NUM_THREADS: 1, MKL_NUM_THREADS: 1, OPENBLAS_NUM_THREADS: 1}",
        "variables of workers' processes, unless the nanny's own environment has them",
    ),
    key(
        "distributed.comm.compression",
        Kind::OneOf(&["false", "auto", "lz4", "zstd"]),
        "false",
        "compression of messages to other hosts",
    ),
    key("distributed.comm.default-scheme", Kind::OneOf(SCHEMES), "tcp", "the protocol of addresses that name none"),
    key("distributed.comm.socket-backlog", Kind::Count, "2048", "connections that may wait to be accepted"),
    key(
        "distributed.comm.timeouts.connect",
        Kind::Duration,
        "30s",
        "how long to try to reach a peer, and for its handshake",
    ),
    key("distributed.comm.timeouts.tcp", Kind::Duration, "30s", "how long a peer may not acknowledge what was sent"),
    key(
        "distributed.comm.require-encryption",
        Kind::Truth,
        "null",
        "refuse `tcp://` and `ws://`; null for whenever certificates are given as options",
    ),
    key("distributed.comm.tls.min-version", Kind::OneOf(&["1.2", "1.3"]), "1.2", "lowest version of TLS"),
    key("distributed.comm.tls.max-version", Kind::OneOf(&["1.2", "1.3"]), "null", "highest version of TLS"),
    key("distributed.comm.tls.ca-file", Kind::Text, "null", "the authority that peers' certificates are checked by"),
    key("distributed.comm.tls.scheduler.cert", Kind::Text, "null", "the scheduler's certificate"),
    key("distributed.comm.tls.scheduler.key", Kind::Text, "null", "its key; in the certificate's file when null"),
    key("distributed.comm.tls.worker.cert", Kind::Text, "null", "the workers' certificate"),
    key("distributed.comm.tls.worker.key", Kind::Text, "null", "its key; in the certificate's file when null"),
    key("distributed.comm.tls.client.cert", Kind::Text, "null", "the certificate of clients and of `dask explain`"),
    key("distributed.comm.tls.client.key", Kind::Text, "null", "its key; in the certificate's file when null"),
    key(
        "distributed.adaptive.target-duration",
        Kind::Duration,
        "5s",
        "time in which the work at hand should be done, for the number of workers advised",
    ),
    key(
        "distributed.adaptive.interval",
        Kind::Duration,
        "1s",
        "with `wait-count`: how long fewer workers must have been enough",
    ),
    key("distributed.adaptive.wait-count", Kind::Count, "3", "so many intervals"),
    key("distributed.admin.log-length", Kind::Count, "10000", "log lines kept for `get_logs`"),
    key(
        "distributed.admin.low-level-log-length",
        Kind::Count,
        "1000",
        "transitions kept for `story`, events kept of each topic, and ten times as many decisions for `explain`",
    ),
];

/// Names of the past, and of what they were renamed to.
const RENAMED: &[(&str, &str)] = &[
    ("allowed-failures", "distributed.scheduler.allowed-failures"),
    ("bandwidth", "distributed.scheduler.bandwidth"),
    ("default-data-size", "distributed.scheduler.default-data-size"),
    ("work-stealing", "distributed.scheduler.work-stealing"),
    ("worker-ttl", "distributed.scheduler.worker-ttl"),
    ("worker-memory-target", "distributed.worker.memory.target"),
    ("worker-memory-spill", "distributed.worker.memory.spill"),
    ("worker-memory-pause", "distributed.worker.memory.pause"),
    ("worker-memory-terminate", "distributed.worker.memory.terminate"),
    ("compression", "distributed.comm.compression"),
    ("connect-timeout", "distributed.comm.timeouts.connect"),
    ("tcp-timeout", "distributed.comm.timeouts.tcp"),
    ("default-scheme", "distributed.comm.default-scheme"),
    ("socket-backlog", "distributed.comm.socket-backlog"),
    ("transition-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.scheduler.transition-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.scheduler.events-log-length", "distributed.admin.low-level-log-length"),
    ("log-length", "distributed.admin.log-length"),
];

/// Moves what stands under names of the past, and tells of each.
pub(super) fn rename_deprecated(root: &mut Map) -> Vec<String> {
    let mut warnings = Vec::new();
    for (old, new) in RENAMED {
        let Some(node) = remove(root, old) else { continue };
        warnings.push(format!("{}: the key {old:?} has been deprecated; use {new:?} instead", node.origin));
        set(root, new, node);
    }
    warnings
}

/// The same mapping with the defaults of the keys about which nothing is said.
pub(super) fn with_defaults(root: &Map) -> Map {
    let mut all = root.clone();
    for key in KEYS {
        if find(&all, key.name).is_none() {
            set(&mut all, key.name, default_of(key));
        }
    }
    all
}

fn default_of(key: &Key) -> Node {
    let text = format!("default: {}", key.default);
    let mut map = yaml::parse(std::path::Path::new("default"), &text).expect("the defaults above are YAML");
    let mut node = map.remove("default").expect("it was just written");
    forget_place(&mut node);
    node
}

fn forget_place(node: &mut Node) {
    node.origin = Origin::Default;
    match &mut node.setting {
        Setting::List(items) => items.iter_mut().for_each(forget_place),
        Setting::Map(entries) => entries.values_mut().for_each(forget_place),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) => {}
    }
}

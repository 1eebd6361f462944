//! Which versions client, scheduler and workers run, and the warning when they differ.

use std::collections::{BTreeMap, BTreeSet};

use dask_protocol::Value;
use dask_protocol::native::{RELEASE, releases_agree};

use super::shared::Server;
use crate::state::ClientId;

/// Packages whose version on the scheduler matters, beside those any two peers must agree on.
const SCHEDULER_RELEVANT: [&str; 8] =
    ["python", "dask", "distributed", "cloudpickle", "tornado", "toolz", "lz4", "msgpack"];
/// Most workers named in one cell of the table.
const VERSIONS_SHOWN_MAX: usize = 10;

/// The warning for a peer that registers; empty when all agree.
pub(crate) async fn warning_for(server: &Server, peer_name: &str, peer: Value) -> String {
    let scheduler = server.graphs.known_versions();
    let workers = server.driver.run(|core| {
        let versions = core.workers.values().map(|worker| worker.info.versions.clone());
        versions.collect::<Vec<_>>()
    });
    let Ok(workers) = workers.await else { return String::new() };
    table(peer_name, &peer, scheduler.as_ref(), &workers)
}

/// Whether these are the versions of a Rust client.
pub(crate) fn is_native(versions: &Value) -> bool {
    versions.get("dask-rs").is_some()
}

/// What a Rust client is told that was built with a release of dask-rs that does not go with ours; `None` for all others.
pub(crate) fn refusal(client: &ClientId, versions: &Value) -> Option<String> {
    let release = versions.get("dask-rs").and_then(Value::as_str)?;
    let differs = !releases_agree(release, RELEASE);
    differs.then(|| {
        format!(
            "Rust client {client} was built with dask-rs {release}, this scheduler is {RELEASE}; build the program with \
             that release, or start a scheduler of {release}"
        )
    })
}

/// Upstream's table of the packages that differ. A scheduler that has not asked its Python yet (`None`) has no say.
fn table(peer_name: &str, peer: &Value, scheduler: Option<&Value>, workers: &[Value]) -> String {
    let peer = packages(peer);
    let workers: Vec<_> = workers.iter().map(packages).collect();
    let scheduler = scheduler.map(packages);
    let names = |from: &Packages| from.as_ref().map(|known| known.keys().cloned().collect()).unwrap_or_default();
    let mut all: BTreeSet<String> = names(&peer);
    workers.iter().chain(&scheduler).for_each(|known| all.extend(names(known)));
    let rows: Vec<[String; 4]> = all.iter().filter_map(|name| row(name, &peer, scheduler.as_ref(), &workers)).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("Mismatched versions found\n\n{}", ascii(["Package", peer_name, "Scheduler", "Workers"], &rows))
}

/// Versions by package; `None` from a peer that tells none.
type Packages = Option<BTreeMap<String, String>>;

fn packages(versions: &Value) -> Packages {
    let Some(Value::Map(entries)) = versions.get("packages") else { return None };
    let text = |value: &Value| value.as_str().map_or_else(|| "None".to_owned(), str::to_owned);
    Some(entries.iter().filter_map(|(name, version)| Some((name.as_str()?.to_owned(), text(version)))).collect())
}

fn version_of(name: &str, packages: &Packages) -> String {
    match packages {
        None => "UNKNOWN".to_owned(),
        Some(known) => known.get(name).cloned().unwrap_or_else(|| "MISSING".to_owned()),
    }
}

fn row(name: &str, peer: &Packages, scheduler: Option<&Packages>, workers: &[Packages]) -> Option<[String; 4]> {
    let of_peer = version_of(name, peer);
    let of_scheduler = scheduler.map(|packages| version_of(name, packages));
    let of_workers: BTreeSet<String> = workers.iter().map(|packages| version_of(name, packages)).collect();
    let mut distinct: BTreeSet<&String> = of_workers.iter().collect();
    distinct.insert(&of_peer);
    if SCHEDULER_RELEVANT.contains(&name) {
        distinct.extend(&of_scheduler);
    }
    if distinct.len() <= 1 {
        return None;
    }
    let shown: Vec<String> = of_workers.into_iter().take(VERSIONS_SHOWN_MAX).collect();
    let workers = match shown.as_slice() {
        [] => "None".to_owned(),
        [one] => one.clone(),
        many => format!("{{{}}}", many.iter().map(|version| format!("'{version}'")).collect::<Vec<_>>().join(", ")),
    };
    Some([name.to_owned(), of_peer, of_scheduler.unwrap_or_else(|| "UNKNOWN".to_owned()), workers])
}

fn ascii(titles: [&str; 4], rows: &[[String; 4]]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].len()).chain([titles[i].len()]).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let bar = format!("+{}+", widths.map(|w| "-".repeat(w + 2)).join("+"));
    let line = |cells: [&str; 4]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        format!("| {} |", padded.join(" | "))
    };
    let mut lines = vec![bar.clone(), line(titles), bar.clone()];
    lines.extend(rows.iter().map(|row| line([&row[0], &row[1], &row[2], &row[3]])));
    lines.push(bar);
    lines.join("\n")
}

/// What this process can say of itself without any Python.
pub(crate) fn own_versions() -> Value {
    let env = |name: &str| Value::from(std::env::var(name).unwrap_or_else(|_| "None".to_owned()));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        other => other,
    };
    let host = Value::map([
        ("python", Value::Nil),
        ("python-bits", i64::from(usize::BITS).into()),
        ("OS", os.into()),
        ("OS-release", release.trim().into()),
        ("machine", std::env::consts::ARCH.into()),
        ("processor", "".into()),
        ("byteorder", if cfg!(target_endian = "little") { "little" } else { "big" }.into()),
        ("LC_ALL", env("LC_ALL")),
        ("LANG", env("LANG")),
    ]);
    let packages = Value::map([("dask-rs", env!("CARGO_PKG_VERSION").into())]);
    Value::map([("host", host), ("packages", packages)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(packages: &[(&str, &str)]) -> Value {
        Value::map([("packages", Value::map(packages.iter().map(|(name, version)| (*name, Value::from(*version)))))])
    }

    #[test]
    fn equal_versions_give_no_warning() {
        let same = versions(&[("python", "3.11"), ("dask", "2026.8.0")]);
        assert_eq!(table("Client", &same, Some(&same), &[same.clone(), same.clone()]), "");
        assert_eq!(table("Client", &same, None, &[]), "");
    }

    #[test]
    fn a_difference_is_shown_with_every_side() {
        let client = versions(&[("dask", "1"), ("numpy", "2")]);
        let worker = versions(&[("dask", "2"), ("numpy", "2")]);
        let text = table("Client", &client, None, &[worker]);
        let expected = "Mismatched versions found\n\n\
            +---------+--------+-----------+---------+\n\
            | Package | Client | Scheduler | Workers |\n\
            +---------+--------+-----------+---------+\n\
            | dask    | 1      | UNKNOWN   | 2       |\n\
            +---------+--------+-----------+---------+";
        assert_eq!(text, expected);
    }

    #[test]
    fn rust_clients_of_another_release_are_refused_with_both_named() {
        let told = |release: &str| Value::map([("dask-rs", Value::from(release))]);
        let client = ClientId::from("Client-1".to_owned());
        let refused = refusal(&client, &told("7.1.0")).expect("another release");
        assert!(refused.contains("7.1.0") && refused.contains(RELEASE), "{refused}");
        assert_eq!(refusal(&client, &told(RELEASE)), None);
        assert_eq!(refusal(&client, &versions(&[("dask", "2026.8.0")])), None);
    }

    #[test]
    fn a_worker_that_tells_nothing_is_unknown() {
        let text = table("Client", &versions(&[("dask", "1")]), None, &[Value::Map(Vec::new())]);
        assert!(text.contains("UNKNOWN"), "{text}");
    }
}

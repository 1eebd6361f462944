//! What this machine, or the container around this process, lets it use.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory and CPUs as upstream counts them (`distributed.system.MEMORY_LIMIT`, `dask.system.CPU_COUNT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System {
    /// Bytes of memory: the least of the machine's, the control group's and the resource limit's.
    pub memory: u64,
    /// CPUs: the least of those this process may run on and its control group's quota, rounded up.
    pub cpus: NonZeroUsize,
}

impl System {
    /// Asks the operating system.
    pub fn detect() -> System {
        let read = |path: &str| fs::read_to_string(path).ok();
        let rss_limit = getrlimit(Resource::Rss).maximum;
        // The standard library respects CPU affinity.
        let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        System { memory: memory_limit(read, rss_limit), cpus: quota_cpus(read).map_or(cpus, |quota| quota.min(cpus)) }
    }
}

/// Where control groups (versions 1 and 2) state limits, hard and soft.
const MEMORY_LIMIT_FILES: [&str; 5] = [
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.soft_limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
    "/sys/fs/cgroup/memory.low",
];

fn memory_limit(read: impl Fn(&str) -> Option<String>, rss_limit: Option<u64>) -> u64 {
    let of_groups = MEMORY_LIMIT_FILES.iter().filter_map(|path| read(path)?.trim().parse().ok());
    let of_machine = read("/proc/meminfo").and_then(|text| total_memory(&text));
    of_groups.chain(of_machine).chain(rss_limit).filter(|&limit| limit > 0).min().unwrap_or(u64::MAX)
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// CPUs of the control group's quota, rounded up; `None` without one.
fn quota_cpus(read: impl Fn(&str) -> Option<String>) -> Option<NonZeroUsize> {
    let number = |path: String| read(&path)?.trim().parse::<i64>().ok();
    let v1 = ["cpuacct,cpu", "cpu,cpuacct"].iter().find_map(|dir| {
        let quota = number(format!("/sys/fs/cgroup/{dir}/cpu.cfs_quota_us"))?;
        Some((quota, number(format!("/sys/fs/cgroup/{dir}/cpu.cfs_period_us"))?))
    });
    let v2 = || {
        let groups = read("/proc/self/cgroup")?;
        let path = groups.trim().rsplit(':').next()?.trim_end_matches('/').to_owned();
        let text = read(&format!("/sys/fs/cgroup{path}/cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some((quota.parse().ok()?, period.parse().ok()?))
    };
    let (quota, period): (i64, i64) = v1.or_else(v2)?;
    if quota <= 0 || period <= 0 {
        return None;
    }
    let whole = quota / period + i64::from(quota % period > 0);
    usize::try_from(whole).ok().and_then(NonZeroUsize::new)
}

/// Raises the soft limit of open files to half the hard one, as upstream's scheduler does: each connection is one.
pub fn raise_open_files_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (Some(soft), target) = (current, maximum.map(|hard| hard / 2)) else { return };
    if target.is_some_and(|target| target <= soft) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: target, maximum }) {
        tracing::debug!(%error, "could not raise the limit of open files");
    }
}

/// The address of a network interface, IPv4 first (`distributed.utils.get_ip_interface`).
///
/// # Errors
/// When there is no such interface or it has no address; the text names those there are.
pub fn interface_ip(name: &str) -> io::Result<IpAddr> {
    let addresses = interface_addresses()?;
    let of_name = || addresses.iter().filter(|(interface, _)| interface == name).map(|&(_, ip)| ip);
    of_name().find(IpAddr::is_ipv4).or_else(|| of_name().next()).ok_or_else(|| {
        let mut names: Vec<&str> = addresses.iter().map(|(interface, _)| interface.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{name:?} is not a valid network interface with an address. Valid network interfaces are: {names:?}"
            ),
        )
    })
}

fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut addresses = Vec::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success `getifaddrs` stores a list in `list`, whose entries stay valid until `freeifaddrs`, which is
    // called once below and nothing of the list is kept after it. `ifa_name` is a NUL-terminated string; `ifa_addr`
    // is null or points to a socket address of the kind that `sa_family` says. Only libc lists interfaces with
    // their addresses portably.
    unsafe {
        if libc::getifaddrs(&raw mut list) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut entry = list;
        while let Some(interface) = entry.as_ref() {
            entry = interface.ifa_next;
            let Some(family) = interface.ifa_addr.as_ref().map(|address| i32::from(address.sa_family)) else {
                continue;
            };
            let ip = match family {
                libc::AF_INET => {
                    let address = interface.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::from(address.sin_addr.s_addr.to_ne_bytes())
                }
                libc::AF_INET6 => {
                    let address = interface.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    IpAddr::from(address.sin6_addr.s6_addr)
                }
                _ => continue,
            };
            let name = std::ffi::CStr::from_ptr(interface.ifa_name).to_string_lossy().into_owned();
            addresses.push((name, ip));
        }
        libc::freeifaddrs(list);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn memory_is_the_least_of_all_limits() {
        let machine = files(&[("/proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n")]);
        assert_eq!(memory_limit(&machine, None), 16_384_000_000);
        assert_eq!(memory_limit(&machine, Some(1000)), 1000);
        let v2 = files(&[("/proc/meminfo", "MemTotal: 16000000 kB"), ("/sys/fs/cgroup/memory.max", "2147483648\n")]);
        assert_eq!(memory_limit(v2, None), 2_147_483_648);
        let none = files(&[
            ("/proc/meminfo", "MemTotal: 16000000 kB"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
            ("/sys/fs/cgroup/memory.low", "0\n"),
        ]);
        assert_eq!(memory_limit(none, None), 16_384_000_000);
    }

    #[test]
    fn quota_of_a_control_group_is_rounded_up() {
        let v2 = files(&[("/proc/self/cgroup", "0::/box\n"), ("/sys/fs/cgroup/box/cpu.max", "150000 100000\n")]);
        assert_eq!(quota_cpus(v2), NonZeroUsize::new(2));
        let unlimited = files(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")]);
        assert_eq!(quota_cpus(unlimited), None);
        let v1 = files(&[
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ]);
        assert_eq!(quota_cpus(v1), NonZeroUsize::new(1));
    }

    #[test]
    fn loopback_has_an_address_and_nonsense_has_none() {
        assert_eq!(interface_ip("lo").expect("every Linux has it"), IpAddr::from([127, 0, 0, 1]));
        let error = interface_ip("no-such-interface").expect_err("unknown").to_string();
        assert!(error.contains("no-such-interface") && error.contains("lo"), "{error}");
    }

    #[test]
    fn this_machine_has_memory_and_cpus() {
        let system = System::detect();
        assert!(system.memory > 1 << 20 && system.memory < u64::MAX);
        assert!(system.cpus.get() >= 1);
    }
}

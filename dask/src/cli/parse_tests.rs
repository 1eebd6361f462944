use super::*;

fn system(memory: u64, cpus: usize) -> System {
    System { memory, cpus: NonZeroUsize::new(cpus).expect("at least one") }
}

/// Results recorded from `dask.utils.parse_bytes` of 2026.8.0; `None` where it raises.
const BYTES: [(&str, Option<i64>); 36] = [
    ("100", Some(100)),
    ("100 MB", Some(100_000_000)),
    ("100M", Some(100_000_000)),
    ("5kB", Some(5000)),
    ("5.4 kB", Some(5400)),
    ("1kiB", Some(1024)),
    ("1e6", Some(1_000_000)),
    ("1e6 kB", Some(1_000_000_000)),
    ("MB", Some(1_000_000)),
    ("123", Some(123)),
    ("0", Some(0)),
    ("3G", Some(3_000_000_000)),
    ("3Gi", Some(3_221_225_472)),
    ("2.5G", Some(2_500_000_000)),
    ("512MiB", Some(536_870_912)),
    ("4GiB", Some(4_294_967_296)),
    ("0.5", Some(0)),
    ("1 PB", Some(1_000_000_000_000_000)),
    ("10e9", Some(10_000_000_000)),
    ("5 foos", None),
    ("  7 GB ", Some(7_000_000_000)),
    ("1,000", None),
    ("-5", Some(-5)),
    ("", Some(1)),
    ("1 k", Some(1000)),
    ("1K", Some(1000)),
    ("1Ki", Some(1024)),
    ("1b", Some(1)),
    ("1 TiB", Some(1_099_511_627_776)),
    ("inf", None),
    ("nan", None),
    ("1_000", Some(1000)),
    ("12e3MB", Some(12_000_000_000)),
    (".5G", Some(500_000_000)),
    ("+5M", Some(5_000_000)),
    ("5M5", None),
];

#[test]
fn bytes_are_read_as_upstream_reads_them() {
    for (text, expected) in BYTES {
        assert_eq!(parse_bytes(text).ok(), expected, "{text:?}");
    }
    assert_eq!(parse_bytes("5 foos").expect_err("no unit"), "Could not interpret 'foos' as a byte unit");
    assert!(parse_bytes("1i").is_err());
    assert!(parse_bytes("1e300 PB").is_err());
}

/// Results recorded from `dask.utils.parse_timedelta` of 2026.8.0, in seconds; `None` where it raises.
const TIMES: [(&str, Option<f64>); 23] = [
    ("3s", Some(3.0)),
    ("3.5 seconds", Some(3.5)),
    ("300ms", Some(0.3)),
    ("5 minutes", Some(300.0)),
    ("10", Some(10.0)),
    ("1.5", Some(1.5)),
    ("2h", Some(7200.0)),
    ("1 day", Some(86_400.0)),
    ("1d", Some(86_400.0)),
    ("1 week", Some(604_800.0)),
    ("2 hours 30 minutes", None),
    ("1e3ms", Some(1.0)),
    ("ms", Some(0.001)),
    ("s", Some(1.0)),
    ("5 us", Some(5e-6)),
    ("5 foos", None),
    ("", None),
    ("1m", Some(60.0)),
    ("60S", Some(60.0)),
    ("0", Some(0.0)),
    ("-3s", None),
    (" 5 s ", Some(5.0)),
    ("1 month", None),
];

#[test]
fn durations_are_read_as_upstream_reads_them() {
    for (text, expected) in TIMES {
        assert_eq!(parse_timedelta(text).ok(), expected.map(Duration::from_secs_f64), "{text:?}");
    }
    assert_eq!(parse_timedelta(".5s"), Ok(Duration::from_millis(500)));
    assert!(parse_timedelta("1e300 w").is_err());
    assert!(parse_timedelta("nan").is_err());
}

/// Recorded from `dask.utils.format_bytes`.
#[test]
fn bytes_are_shown_as_upstream_shows_them() {
    let cases = [
        (0, "0 B"),
        (921, "921 B"),
        (922, "0.90 kiB"),
        (1023, "1.00 kiB"),
        (1_000_000, "0.95 MiB"),
        (25_279_537_152, "23.54 GiB"),
        (1_234_567_890_123, "1.12 TiB"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(format_bytes(bytes), expected);
    }
}

#[test]
fn memory_limits_have_many_forms() {
    let system = system(16_000_000_000, 8);
    let bytes = |text| parse_memory_limit(text, 2, &system).map(|limit| limit.bytes);
    for (text, expected) in [
        ("auto", Some(4_000_000_000)),
        ("0.5", Some(8_000_000_000)),
        ("1", Some(16_000_000_000)),
        ("1e9", Some(1_000_000_000)),
        ("2.5G", Some(2_500_000_000)),
        ("3Gi", Some(3_221_225_472)),
        ("16GB", Some(16_000_000_000)),
        ("0", None),
        ("0 GB", None),
    ] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for text in ["-1", "-5GB", "lots", "inf", "nan"] {
        assert!(bytes(text).is_err(), "{text}");
    }
    let capped = parse_memory_limit("17GB", 2, &system).expect("readable");
    assert_eq!(capped.bytes, Some(16_000_000_000));
    assert_eq!(
        capped.warning.as_deref(),
        Some("Ignoring provided memory limit 17GB due to system memory limit of 14.90 GiB")
    );
    assert_eq!(parse_memory_limit("auto", 99, &system).map(|limit| limit.bytes), Ok(Some(16_000_000_000)));
}

#[test]
fn workers_and_threads_share_the_cpus() {
    let cpus = |n| NonZeroUsize::new(n).expect("at least one");
    let workers = |nworkers, nthreads, n| parse_workers(nworkers, nthreads, cpus(n));
    assert_eq!(workers(None, None, 8), Ok((1, 8)));
    assert_eq!(workers(Some("2"), None, 8), Ok((2, 4)));
    assert_eq!(workers(Some("2"), Some("3"), 8), Ok((2, 3)));
    assert_eq!(workers(Some("2"), Some("0"), 8), Ok((2, 4)));
    assert_eq!(workers(Some("-1"), None, 8), Ok((8, 1)));
    assert_eq!(workers(Some("-8"), None, 8), Ok((1, 8)));
    assert_eq!(workers(Some("auto"), None, 4), Ok((4, 1)));
    assert_eq!(workers(Some("auto"), None, 32), Ok((8, 4)));
    assert_eq!(workers(Some("auto"), None, 7), Ok((7, 1)));
    assert_eq!(workers(Some("16"), None, 8), Ok((16, 1)));
    assert_eq!(workers(None, Some("0.5"), 8), Ok((1, 1)));
    assert!(workers(Some("0"), None, 8).expect_err("none").contains("at least one process"));
    for (nworkers, nthreads) in [(Some("-9"), None), (Some("x"), None), (None, Some("-1")), (None, Some("nan"))] {
        assert!(workers(nworkers, nthreads, 8).is_err(), "{nworkers:?} {nthreads:?}");
    }
    assert!(workers(Some("999999999999"), None, 8).is_err());
}

#[test]
fn resources_are_separated_by_spaces_or_commas() {
    let pair = |name: &str, amount| (name.to_owned(), amount);
    assert_eq!(parse_resources("GPU=2 MEM=10e9"), Ok(vec![pair("GPU", 2.0), pair("MEM", 10e9)]));
    assert_eq!(parse_resources("A=1,B=2.5"), Ok(vec![pair("A", 1.0), pair("B", 2.5)]));
    assert_eq!(parse_resources("QUEUE1=inf"), Ok(vec![pair("QUEUE1", f64::INFINITY)]));
    assert_eq!(parse_resources(""), Ok(vec![]));
    for text in ["GPU", "GPU=", "GPU=two", "=2", "A=-1", "A=nan"] {
        assert!(parse_resources(text).is_err(), "{text}");
    }
}

#[test]
fn ports_are_single_ranges_or_lists() {
    assert_eq!(parse_ports("8787"), Ok(vec![8787]));
    assert_eq!(parse_ports("8787:8790"), Ok(vec![8787, 8788, 8789, 8790]));
    assert_eq!(parse_ports("5,7"), Ok(vec![5, 7]));
    for text in ["", "a", "70000", "-1", "8790:8787", "8787:8787", "1:2:3"] {
        assert!(parse_ports(text).is_err(), "{text}");
    }
}

#[test]
fn ports_are_dealt_out_in_turn() {
    let share = |worker: &[u16], nanny: &[u16]| PortShare { worker: worker.to_vec(), nanny: nanny.to_vec() };
    assert_eq!(apportion_ports(None, None, 2, true), Ok(vec![share(&[0], &[0]), share(&[0], &[0])]));
    assert_eq!(
        apportion_ports(Some("100:103"), None, 2, true),
        Ok(vec![share(&[100, 102], &[0]), share(&[101, 103], &[0])])
    );
    assert_eq!(
        apportion_ports(Some("100:101"), Some("101:103"), 2, true),
        Ok(vec![share(&[100], &[102]), share(&[101], &[103])]),
        "no port is given out twice"
    );
    let error = apportion_ports(Some("100"), None, 2, true).expect_err("too few");
    assert_eq!(error, "Not enough ports in range --worker_port 100 --nanny_port None for 2 workers");
    assert_eq!(apportion_ports(Some("100"), Some("100"), 1, false), Ok(vec![share(&[100], &[])]));
}

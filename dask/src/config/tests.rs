use std::fs;

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("within the directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        Files(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, paths: &[&str], variables: &[(&str, &str)]) -> Result<DaskConfig, String> {
        let paths: Vec<PathBuf> = paths.iter().map(|name| self.path(name)).collect();
        DaskConfig::from_sources(&paths, own(variables))
    }
}

fn own(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn of_variables(variables: &[(&str, &str)]) -> DaskConfig {
    DaskConfig::from_sources(&[], own(variables)).expect("a configuration")
}

fn text(config: &DaskConfig, key: &str) -> Option<String> {
    config.get(key).map(|node| node.setting.to_string())
}

#[test]
fn later_directories_win_and_mappings_are_merged() {
    let files = Files::new(&[
        ("etc/a.yaml", "distributed:\n  scheduler:\n    work-stealing: false\n    bandwidth: 5\n"),
        ("etc/b.yml", "distributed: {scheduler: {bandwidth: 6}}"),
        ("etc/notes.txt", "not: read"),
        ("home/c.json", "{\"distributed\": {\"scheduler\": {\"work_stealing\": true}}}"),
    ]);
    let config = files.load(&["etc", "home", "nowhere"], &[]).expect("a configuration");
    assert_eq!(text(&config, "distributed.scheduler.bandwidth").as_deref(), Some("6"));
    assert_eq!(text(&config, "distributed.scheduler.work-stealing").as_deref(), Some("true"));
    assert_eq!(text(&config, "distributed.scheduler.work_stealing").as_deref(), Some("true"));
    assert_eq!(config.get("not"), None);
    let origin = &config.get("distributed.scheduler.bandwidth").expect("said").origin;
    assert_eq!(*origin, Origin::File(files.path("etc/b.yml").into(), 1));
}

#[test]
fn variables_are_python_literals_and_win() {
    let files = Files::new(&[("a.yaml", "scheduler-address: tcp://file:1\nscheduler: {port: 1}")]);
    let config = files
        .load(
            &["a.yaml"],
            &[
                ("DASK_SCHEDULER_ADDRESS", "\"tcp://scheduler:8786\""),
                ("DASK_SCHEDULER_PORT", "tcp://10.12.0.1:8786"),
                ("DASK_DISTRIBUTED__WORKER__MEMORY__TARGET", "False"),
                ("DASK_DISTRIBUTED__WORKER__PRELOAD", "['a.py', \"b\"]"),
                ("DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH", "1_000"),
                ("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "true"),
                ("DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT", "None"),
                ("DASK_DISTRIBUTED__WORKER__RESOURCES", "{'GPU': 2, 'MEM': 1e9}"),
                ("PATH", "/bin"),
            ],
        )
        .expect("a configuration");
    assert_eq!(text(&config, "scheduler-address").as_deref(), Some("tcp://scheduler:8786"));
    assert_eq!(text(&config, "scheduler-port").as_deref(), Some("tcp://10.12.0.1:8786"));
    assert_eq!(config.key("distributed.worker.memory.target").expect("said").fraction(), Ok(None));
    assert_eq!(config.texts("distributed.worker.preload"), Ok(vec!["a.py".to_owned(), "b".to_owned()]));
    assert_eq!(text(&config, "distributed.scheduler.bandwidth").as_deref(), Some("1000"));
    assert_eq!(config.key("distributed.comm.require-encryption").expect("said").truth(), Ok(true));
    assert_eq!(config.key("distributed.scheduler.idle-timeout"), None);
    let resources = config.entries("distributed.worker.resources").expect("a mapping");
    let amounts: Vec<_> = resources.iter().map(|(name, said)| (*name, said.number())).collect();
    assert_eq!(amounts, [("GPU", Ok(2.0)), ("MEM", Ok(1e9))]);
}

#[test]
fn literals_are_read_as_python_reads_them() {
    let cases = [
        ("1", "1"),
        ("-0x10", "-16"),
        ("1e3", "1000"),
        ("007", "007"),
        ("(1, 2)", "[1, 2]"),
        ("(1)", "1"),
        ("[1 2]", "[1 2]"),
        ("'a\\'b'", "a'b"),
        ("'a", "'a"),
        ("NONE", "null"),
        ("true", "true"),
        ("1 minute", "1 minute"),
        ("8786:8790", "8786:8790"),
        ("{'a': [1, {}]}", "{a: [1, {}]}"),
        ("", ""),
    ];
    for (given, expected) in cases {
        let config = of_variables(&[("DASK_X", given)]);
        assert_eq!(text(&config, "x").as_deref(), Some(expected), "{given}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(text(&of_variables(&[("DASK_X", &deep)]), "x"), Some(deep));
}

#[test]
fn an_inherited_configuration_counts_less_than_other_variables() {
    use base64::Engine as _;
    let json = r#"{"distributed": {"scheduler": {"work-stealing": false, "bandwidth": 7}}, "x": null}"#;
    for engine in [base64::engine::general_purpose::URL_SAFE, base64::engine::general_purpose::URL_SAFE_NO_PAD] {
        let encoded = engine.encode(json);
        let config = of_variables(&[
            ("DASK_INTERNAL_INHERIT_CONFIG", &encoded),
            ("DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH", "8"),
        ]);
        assert_eq!(text(&config, "distributed.scheduler.bandwidth").as_deref(), Some("8"));
        let stealing = config.get("distributed.scheduler.work-stealing").expect("inherited");
        assert_eq!(stealing.setting, Setting::Bool(false));
        assert_eq!(stealing.origin.to_string(), "DASK_INTERNAL_INHERIT_CONFIG");
    }
    let error = DaskConfig::from_sources(&[], own(&[("DASK_INTERNAL_INHERIT_CONFIG", "%%%")])).expect_err("no base64");
    assert!(error.starts_with("DASK_INTERNAL_INHERIT_CONFIG: "), "{error}");
}

#[test]
fn words_mean_what_pyyaml_takes_them_for() {
    let files = Files::new(&[(
        "a.yaml",
        "a: yes\nb: 'yes'\nc: .inf\nd: 1e3\ne: 1.5e+3\nf: 0x1f\ng: 1_000\nh: ~\ni: 010\nj: 1kiB\nk: -2.5\nl: off\nm:\nn: 08\n",
    )]);
    let config = files.load(&["a.yaml"], &[]).expect("a configuration");
    let expected = [
        ("a", Setting::Bool(true)),
        ("b", Setting::Text("yes".to_owned())),
        ("c", Setting::Float(f64::INFINITY)),
        ("d", Setting::Text("1e3".to_owned())),
        ("e", Setting::Float(1500.0)),
        ("f", Setting::Int(31)),
        ("g", Setting::Int(1000)),
        ("h", Setting::Null),
        ("i", Setting::Int(8)),
        ("j", Setting::Text("1kiB".to_owned())),
        ("k", Setting::Float(-2.5)),
        ("l", Setting::Bool(false)),
        ("m", Setting::Null),
        ("n", Setting::Text("08".to_owned())),
    ];
    for (key, setting) in expected {
        assert_eq!(config.get(key).map(|node| &node.setting), Some(&setting), "{key}");
    }
}

#[test]
fn anchors_and_merge_keys_are_followed_and_bombs_are_refused() {
    let files = Files::new(&[
        ("a.yaml", "base: &base {x: 1, y: 2}\nother:\n  <<: *base\n  y: 3\n"),
        ("bomb.yaml", &bomb()),
        ("deep.yaml", &format!("a: {}", "[".repeat(1000))),
    ]);
    let config = files.load(&["a.yaml"], &[]).expect("a configuration");
    assert_eq!(text(&config, "other").as_deref(), Some("{x: 1, y: 3}"));
    for name in ["bomb.yaml", "deep.yaml"] {
        let error = files.load(&[name], &[]).expect_err("too much");
        assert!(error.contains(name), "{error}");
    }
}

fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        text += &format!("a{i}: &a{i} [{before}]\n");
    }
    text
}

#[test]
fn what_is_no_configuration_is_named_with_its_line() {
    let files = Files::new(&[("bad.yaml", "a: 1\nb: [1,\n"), ("list.yaml", "- 1\n"), ("empty.yaml", "# nothing\n")]);
    for name in ["bad.yaml", "list.yaml"] {
        let error = files.load(&[name], &[]).expect_err("malformed");
        let path = files.path(name);
        let place = error.strip_prefix(path.to_str().expect("text")).expect("the file first");
        assert!(place.starts_with(':') && place[1..2].chars().all(|c| c.is_ascii_digit()), "{error}");
    }
    assert_eq!(files.load(&["empty.yaml"], &[]), Ok(DaskConfig::default()));
}

#[test]
fn wrong_values_are_named_with_file_and_line_or_variable() {
    let files =
        Files::new(&[("a.yaml", "distributed:\n  scheduler:\n    worker-ttl: soon\n    worker-saturation: -1\n")]);
    let config = files.load(&["a.yaml"], &[("DASK_DISTRIBUTED__WORKER__MEMORY__SPILL", "7")]).expect("well-formed");
    let complaints = config.complaints();
    let path = files.path("a.yaml");
    let place = |line: usize, key: &str| format!("{}:{line}: distributed.scheduler.{key}: ", path.display());
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    assert!(complaints.iter().any(|text| text.starts_with(&place(3, "worker-ttl"))), "{complaints:?}");
    assert!(complaints.iter().any(|text| text.starts_with(&place(4, "worker-saturation"))), "{complaints:?}");
    assert!(complaints.iter().any(|text| text.starts_with("DASK_DISTRIBUTED__WORKER__MEMORY__SPILL: ")));
}

#[test]
fn names_of_the_past_are_followed_with_a_warning() {
    let config = of_variables(&[("DASK_WORKER_TTL", "1m"), ("DASK_UNKNOWN_THING", "1")]);
    assert_eq!(text(&config, "distributed.scheduler.worker-ttl").as_deref(), Some("1m"));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("worker-ttl"), "{:?}", config.warnings);
}

#[test]
fn defaults_are_complete_right_and_shown() {
    let config = DaskConfig::default();
    let all = DaskConfig { root: keys::with_defaults(&config.root), warnings: Vec::new() };
    assert_eq!(all.complaints(), [""; 0]);
    let shown = of_variables(&[("DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH", "8")]).show();
    let line = |part: &str| shown.lines().find(|line| line.contains(part)).map(str::trim).unwrap_or_default();
    assert!(line("bandwidth").ends_with("# DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH"), "{shown}");
    assert!(line("worker-ttl").ends_with("# default"), "{shown}");
    // What is shown can be read again.
    let files = Files::new(&[("shown.yaml", &shown)]);
    let again = files.load(&["shown.yaml"], &[]).expect("YAML");
    assert_eq!(text(&again, "distributed.worker.memory").map(|text| text.len() > 100), Some(true));
    for key in KEYS {
        assert_eq!(
            text(&again, key.name),
            all.effective(key.name)
                .map(|node| node.setting.to_string())
                .filter(|_| key.name != "distributed.scheduler.bandwidth")
                .or(Some("8".to_owned())),
            "{}",
            key.name
        );
    }
}

#[test]
fn places_are_searched_in_dasks_order() {
    let set = |name: &str| match name {
        "HOME" => Some("/home/u".into()),
        "VIRTUAL_ENV" => Some("/venv".into()),
        "DASK_CONFIG" => Some("/x/my.yaml".into()),
        _ => None,
    };
    let paths = search_paths(set, Some(Path::new("/usr/bin/dask")));
    let expected = ["/etc/dask", "/usr/etc/dask", "/venv/etc/dask", "/home/u/.config/dask", "/x/my.yaml"];
    assert_eq!(paths, expected.map(PathBuf::from));
    let inside = search_paths(set, Some(Path::new("/venv/bin/dask")));
    assert_eq!(inside.iter().filter(|path| path.starts_with("/venv")).count(), 1);
    let root = |name: &str| (name == "DASK_ROOT_CONFIG").then(|| "/r".into());
    assert_eq!(search_paths(root, None), [PathBuf::from("/r")]);
}

#[test]
fn files_with_a_key_are_found() {
    let files = Files::new(&[("d/a.yaml", "x: {y: 1}"), ("d/b.yaml", "z: 1")]);
    let found = files_with("x.y", &[files.path("d")]).expect("well-formed");
    assert_eq!(found.keys().collect::<Vec<_>>(), [&files.path("d/a.yaml")]);
}

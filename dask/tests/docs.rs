//! The pages about commands and configuration hold what the commands themselves say. `DASK_WRITE_DOCS=1 cargo test -p dask
//! --test docs` writes it there.

use std::fs;
use std::path::PathBuf;

use dask::cli::completion::whole;
use dask::config::KEYS;

const BEGIN: &str = "<!-- written by dask/tests/docs.rs -->";
const END: &str = "<!-- end -->";

/// Compares what stands between the marks with `text`.
fn check(page: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let written = fs::read_to_string(&path).expect("the page");
    let (head, rest) = written.split_once(BEGIN).expect("where the text begins");
    let (old, tail) = rest.split_once(END).expect("where it ends");
    if std::env::var_os("DASK_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}\n{text}{END}{tail}")).expect("written");
        return;
    }
    assert_eq!(old.trim(), text.trim(), "docs/{page} is old; run DASK_WRITE_DOCS=1 cargo test -p dask --test docs");
}

#[test]
fn every_key_of_the_configuration_is_on_its_page() {
    let mut text = "| key | value | default | what it does |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        text += &format!("| `{}` | {} | `{}` | {} |\n", key.name, key.kind.name(), key.default, key.about);
    }
    check("configuration.md", &text);
}

#[test]
fn every_command_is_on_its_page() {
    let mut text = String::new();
    for command in whole().get_subcommands_mut() {
        let help = command.clone().term_width(110).render_help().to_string();
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        text += &format!("## dask {}\n\n```text\n{}```\n\n", command.get_name(), help);
    }
    check("cli.md", &text);
}

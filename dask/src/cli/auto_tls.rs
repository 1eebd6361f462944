//! `--auto-tls DIRECTORY`: certificates for a cluster, made at its first start.
//!
//! The directory then holds an authority (whose key is kept nowhere), a certificate with its key for each role, and
//! `dask.yaml`, by which clients and workers, of Python too, find them: `DASK_CONFIG=DIRECTORY/dask.yaml`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::tls::TlsArgs;

/// What the bundle is found by, and what is written last: a directory without it is not finished.
const CONFIG: &str = "dask.yaml";
/// The roles of `distributed.comm.tls`.
const ROLES: [&str; 3] = ["scheduler", "worker", "client"];

/// The scheduler's options for the certificates in `directory`, which are made if there are none.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn bundle(directory: &str) -> Result<TlsArgs, String> {
    let wrong = |error: String| format!("--auto-tls {directory}: {error}");
    let path = make(Path::new(directory)).map_err(wrong)?;
    let file = |name: &str| Some(path.join(name).to_string_lossy().into_owned());
    Ok(TlsArgs { tls_ca_file: file("ca.pem"), tls_cert: file("scheduler.pem"), tls_key: None })
}

/// The absolute path of the directory, with everything in it.
fn make(directory: &Path) -> Result<PathBuf, String> {
    let io = |error: std::io::Error| error.to_string();
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    let directory = fs::canonicalize(directory).map_err(io)?;
    if directory.join(CONFIG).exists() {
        return Ok(directory);
    }
    let (authority, leaves) = certificates().map_err(|error| error.to_string())?;
    let write =
        |name: &str, text: &str| write_private(&directory.join(name), text).map_err(|error| format!("{name}: {error}"));
    write("ca.pem", &authority)?;
    for (role, pem) in ROLES.iter().zip(&leaves) {
        write(&format!("{role}.pem"), pem)?;
    }
    write(CONFIG, &config(&directory))?;
    Ok(directory)
}

/// The authority's certificate, and for each role a certificate and its key.
fn certificates() -> Result<(String, Vec<String>), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "dask-rs --auto-tls");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let leaf = |role: &&str| {
        // Names are not checked between dask's processes: the authority is what counts.
        let mut leaf = CertificateParams::new(vec![format!("dask-{role}")])?;
        leaf.distinguished_name.push(DnType::CommonName, format!("dask-{role}"));
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok(leaf.signed_by(&key, &issuer)?.pem() + &key.serialize_pem())
    };
    Ok((certificate, ROLES.iter().map(leaf).collect::<Result<_, rcgen::Error>>()?))
}

fn config(directory: &Path) -> String {
    let file = |name: &str| serde_json::Value::from(directory.join(name).to_string_lossy()).to_string();
    let mut text = format!(
        "distributed:\n  comm:\n    default-scheme: tls\n    require-encryption: true\n    tls:\n      ca-file: {}\n",
        file("ca.pem")
    );
    for role in ROLES {
        let pem = file(&format!("{role}.pem"));
        text += &format!("      {role}:\n        cert: {pem}\n        key: {pem}\n");
    }
    text
}

/// Nobody else may read a key, not even while it is written. What an unfinished start left is replaced.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tls::Role;
    use crate::config::DaskConfig;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_bundle_is_made_once_and_serves_every_role() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bundled = directory.path().join("tls");
        let name = bundled.to_str().expect("text");
        let scheduler = bundle(name).expect("made");
        let made = fs::read(bundled.join("scheduler.pem")).expect("there");
        bundle(name).expect("found again");
        assert_eq!(fs::read(bundled.join("scheduler.pem")).expect("there"), made);
        let mode = fs::metadata(bundled.join("client.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let comm = scheduler.comm_config(Role::Scheduler, &DaskConfig::default(), None).expect("certificates that fit");
        assert!(comm.require_encryption && comm.tls.is_some());
        let dask = DaskConfig::from_sources(&[bundled.join(CONFIG)], []).expect("a configuration");
        for role in [Role::Scheduler, Role::Worker, Role::Client] {
            let comm = TlsArgs::default().comm_config(role, &dask, None).expect("certificates that fit");
            assert!(comm.require_encryption && comm.tls.is_some());
        }
        assert_eq!(TlsArgs::default().default_scheme(&dask), Ok("tls"));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = bundle("/dev/null/tls").expect_err("no directory");
        assert!(error.starts_with("--auto-tls /dev/null/tls: "), "{error}");
    }
}

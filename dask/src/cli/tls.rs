//! Certificates and how connections are made, from options and configuration.

use clap::Args;
use dask_protocol::comm::{CommConfig, PageTls, TlsConfig, TlsVersions};
use dask_protocol::compression::Compression;

use crate::config::{DaskConfig, SCHEMES, Said};

/// The TLS options, alike for scheduler and worker.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// CA cert(s) file for TLS (in PEM format)
    #[arg(long, value_name = "PATH")]
    pub tls_ca_file: Option<String>,
    /// Certificate file for TLS (in PEM format)
    #[arg(long, value_name = "PATH")]
    pub tls_cert: Option<String>,
    /// Private key file for TLS (in PEM format); the certificate's file when not given
    #[arg(long, value_name = "PATH")]
    pub tls_key: Option<String>,
}

/// Whose certificate counts (`distributed.comm.tls.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The scheduler's.
    Scheduler,
    /// That of workers and nannies.
    Worker,
    /// That of clients, and of commands that ask a scheduler.
    Client,
}

impl Role {
    /// The keys of the certificate and its key.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Role::Scheduler => ("distributed.comm.tls.scheduler.cert", "distributed.comm.tls.scheduler.key"),
            Role::Worker => ("distributed.comm.tls.worker.cert", "distributed.comm.tls.worker.key"),
            Role::Client => ("distributed.comm.tls.client.cert", "distributed.comm.tls.client.key"),
        }
    }
}

/// The three files of a complete set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl TlsArgs {
    /// The files; `None` when neither an option nor the configuration names any.
    ///
    /// # Errors
    /// When the set is not complete.
    pub fn paths(&self, role: Role, dask: &DaskConfig) -> Result<Option<TlsPaths>, String> {
        let (cert_key, key_key) = role.keys();
        let text = |said: Option<Said<'_>>| said.map(|said| said.text().to_owned());
        let ca = text(dask.said("--tls-ca-file", self.tls_ca_file.as_deref(), "distributed.comm.tls.ca-file"));
        let cert = text(dask.said("--tls-cert", self.tls_cert.as_deref(), cert_key));
        let key = text(dask.said("--tls-key", self.tls_key.as_deref(), key_key));
        match (ca, cert, key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), key) => Ok(Some(TlsPaths { ca, key: key.unwrap_or_else(|| cert.clone()), cert })),
            // The other roles' certificates are not this one's: it can speak tcp:// and ws:// only.
            (Some(_), None, None) if self.tls_ca_file.is_none() => Ok(None),
            (None, _, _) => {
                Err("TLS also needs --tls-ca-file or distributed.comm.tls.ca-file: peers are trusted by it".to_owned())
            }
            (_, None, _) => {
                Err(format!("TLS also needs --tls-cert or {cert_key}: every dask peer shows a certificate"))
            }
        }
    }

    /// The scheme that these options, or else the configuration, ask for.
    ///
    /// # Errors
    /// When the configuration asks for one that is not supported.
    pub fn default_scheme(&self, dask: &DaskConfig) -> Result<&'static str, String> {
        if self.any() {
            return Ok("tls");
        }
        dask.key("distributed.comm.default-scheme").map_or(Ok("tcp"), |said| said.one_of(SCHEMES))
    }

    fn any(&self) -> bool {
        self.tls_ca_file.is_some() || self.tls_cert.is_some() || self.tls_key.is_some()
    }

    /// How connections are made. Certificates given as options require encryption, as upstream, unless the configuration
    /// says otherwise.
    ///
    /// # Errors
    /// When a file cannot be read, the files do not fit each other, or the configuration has a value that cannot be read.
    pub fn comm_config(&self, role: Role, dask: &DaskConfig, server_name: Option<&str>) -> Result<CommConfig, String> {
        let default = CommConfig::default();
        let versions = versions(dask)?;
        let load = |paths: TlsPaths| {
            TlsConfig::load_versions(&paths.ca, &paths.cert, &paths.key, versions).map_err(|e| e.to_string())
        };
        let tls = self.paths(role, dask)?.map(load).transpose()?;
        let duration = |key, default| dask.key(key).map_or(Ok(default), |said| said.duration());
        let connect_timeout = duration("distributed.comm.timeouts.connect", default.connect_timeout)?;
        let backlog = dask.key("distributed.comm.socket-backlog").map(|said| said.count()).transpose()?;
        Ok(CommConfig {
            tls,
            server_name: server_name.map(str::to_owned),
            connect_timeout,
            handshake_timeout: connect_timeout.min(default.handshake_timeout),
            tcp_timeout: duration("distributed.comm.timeouts.tcp", default.tcp_timeout)?,
            require_encryption: match dask.key("distributed.comm.require-encryption") {
                Some(said) => said.truth()?,
                None => self.any(),
            },
            compression: compression(dask)?,
            backlog: backlog.map_or(default.backlog, |n| i32::try_from(n).unwrap_or(i32::MAX)),
            in_process: default.in_process,
            host: None,
        })
    }

    /// The same options as arguments for a child process.
    pub fn to_args(&self) -> Vec<String> {
        let options =
            [("--tls-ca-file", &self.tls_ca_file), ("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key)];
        let given = options.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        given.flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// The certificate of the scheduler's and the workers' pages, if the configuration names one.
///
/// # Errors
/// When it cannot be read.
pub fn page_tls(dask: &DaskConfig) -> Result<Option<PageTls>, String> {
    const CERT: &str = "distributed.scheduler.dashboard.tls.cert";
    const KEY: &str = "distributed.scheduler.dashboard.tls.key";
    let (cert, key) = (dask.key(CERT), dask.key(KEY));
    let Some(cert) = cert else {
        return if key.is_some() { Err(format!("{KEY} is there, and no {CERT}")) } else { Ok(None) };
    };
    let key = key.as_ref().unwrap_or(&cert);
    PageTls::load(cert.text(), key.text()).map(Some).map_err(|error| format!("{CERT}: {error}"))
}

fn versions(dask: &DaskConfig) -> Result<TlsVersions, String> {
    let is = |key, version| match dask.key(key) {
        Some(said) => Ok(said.one_of(&["1.2", "1.3"])? == version),
        None => Ok::<bool, String>(false),
    };
    let versions = TlsVersions {
        at_least_1_3: is("distributed.comm.tls.min-version", "1.3")?,
        at_most_1_2: is("distributed.comm.tls.max-version", "1.2")?,
    };
    if versions.at_least_1_3 && versions.at_most_1_2 {
        return Err("distributed.comm.tls: no version is at least 1.3 and at most 1.2".to_owned());
    }
    Ok(versions)
}

fn compression(dask: &DaskConfig) -> Result<Option<Compression>, String> {
    let Some(said) = dask.key("distributed.comm.compression") else { return Ok(None) };
    match said.one_of(&["false", "auto", "lz4", "zstd"])? {
        "false" => Ok(None),
        "auto" => Ok(Some(Compression::Lz4)),
        name => Ok(Compression::from_name(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dask(variables: &[(&str, &str)]) -> DaskConfig {
        let own = |(name, text): &(&str, &str)| (format!("DASK_DISTRIBUTED__COMM__{name}"), (*text).to_owned());
        DaskConfig::from_sources(&[], variables.iter().map(own)).expect("a configuration")
    }

    #[test]
    fn each_role_has_its_certificate_in_the_configuration() {
        let dask = dask(&[
            ("TLS__CA_FILE", "ca"),
            ("TLS__SCHEDULER__CERT", "s.cert"),
            ("TLS__SCHEDULER__KEY", "s.key"),
            ("TLS__WORKER__CERT", "w.pem"),
        ]);
        let none = args(None, None, None);
        let paths = |args: &TlsArgs, role| args.paths(role, &dask).expect("complete");
        let expected = |ca: &str, cert: &str, key: &str| {
            Some(TlsPaths { ca: ca.to_owned(), cert: cert.to_owned(), key: key.to_owned() })
        };
        assert_eq!(paths(&none, Role::Scheduler), expected("ca", "s.cert", "s.key"));
        assert_eq!(paths(&none, Role::Worker), expected("ca", "w.pem", "w.pem"));
        assert_eq!(paths(&none, Role::Client), None);
        assert_eq!(paths(&args(None, Some("o"), None), Role::Worker), expected("ca", "o", "o"));
    }

    #[test]
    fn connections_are_made_as_the_configuration_says() {
        let none = args(None, None, None);
        let comm = |variables: &[(&str, &str)]| none.comm_config(Role::Worker, &dask(variables), None);
        let said = comm(&[
            ("TIMEOUTS__CONNECT", "5s"),
            ("TIMEOUTS__TCP", "100"),
            ("COMPRESSION", "auto"),
            ("REQUIRE_ENCRYPTION", "True"),
            ("SOCKET_BACKLOG", "7"),
        ])
        .expect("readable");
        assert_eq!(
            (said.connect_timeout.as_secs(), said.handshake_timeout.as_secs(), said.tcp_timeout.as_secs()),
            (5, 5, 100)
        );
        assert_eq!((said.compression, said.require_encryption, said.backlog), (Some(Compression::Lz4), true, 7));
        let default = comm(&[]).expect("readable");
        assert_eq!((default.compression, default.require_encryption, default.tls.is_none()), (None, false, true));
        let error = comm(&[("TIMEOUTS__TCP", "long")]).expect_err("no duration");
        assert!(error.starts_with("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP: "), "{error}");
    }

    fn args(ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> TlsArgs {
        let own = |text: Option<&str>| text.map(str::to_owned);
        TlsArgs { tls_ca_file: own(ca), tls_cert: own(cert), tls_key: own(key) }
    }

    #[test]
    fn sets_are_complete_or_refused() {
        assert_eq!(args(None, None, None).paths(Role::Worker, &DaskConfig::default()), Ok(None));
        let paths = args(Some("ca"), Some("cert"), None)
            .paths(Role::Worker, &DaskConfig::default())
            .expect("complete")
            .expect("given");
        assert_eq!((paths.ca.as_str(), paths.cert.as_str(), paths.key.as_str()), ("ca", "cert", "cert"));
        assert!(args(None, Some("cert"), Some("key")).paths(Role::Worker, &DaskConfig::default()).is_err());
        assert!(args(Some("ca"), None, None).paths(Role::Worker, &DaskConfig::default()).is_err());
    }

    #[test]
    fn files_that_do_not_exist_are_named() {
        let error = args(Some("/no/ca.pem"), Some("/no/cert.pem"), None)
            .comm_config(Role::Worker, &DaskConfig::default(), None)
            .expect_err("missing");
        assert!(error.contains("/no/ca.pem"), "{error}");
    }

    #[test]
    fn children_get_the_same_options() {
        assert_eq!(args(Some("a"), None, Some("k")).to_args(), ["--tls-ca-file", "a", "--tls-key", "k"]);
        assert_eq!(args(Some("a"), None, None).default_scheme(&DaskConfig::default()), Ok("tls"));
        assert_eq!(args(None, None, None).default_scheme(&DaskConfig::default()), Ok("tcp"));
    }
}

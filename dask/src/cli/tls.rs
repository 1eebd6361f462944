//! Certificates from options.

use clap::Args;
use dask_protocol::comm::{CommConfig, TlsConfig};

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
    /// The files; `None` when no option was given.
    ///
    /// # Errors
    /// When the set is not complete.
    pub fn paths(&self) -> Result<Option<TlsPaths>, String> {
        match (&self.tls_ca_file, &self.tls_cert, &self.tls_key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), key) => {
                let key = key.as_ref().unwrap_or(cert).clone();
                Ok(Some(TlsPaths { ca: ca.clone(), cert: cert.clone(), key }))
            }
            (None, _, _) => Err("TLS also needs --tls-ca-file: peers are trusted by it".to_owned()),
            (_, None, _) => Err("TLS also needs --tls-cert: every dask peer shows a certificate".to_owned()),
        }
    }

    /// The scheme that these options ask for.
    pub fn default_scheme(&self) -> &'static str {
        if self.tls_ca_file.is_some() || self.tls_cert.is_some() || self.tls_key.is_some() { "tls" } else { "tcp" }
    }

    /// How connections are made with these certificates. With certificates `tcp://` still works, as upstream.
    ///
    /// # Errors
    /// When a file cannot be read or the files do not fit each other.
    pub fn comm_config(&self, server_name: Option<&str>) -> Result<CommConfig, String> {
        let load = |paths: TlsPaths| TlsConfig::load(&paths.ca, &paths.cert, &paths.key).map_err(|e| e.to_string());
        let tls = self.paths()?.map(load).transpose()?;
        Ok(CommConfig { tls, server_name: server_name.map(str::to_owned), ..CommConfig::default() })
    }

    /// The same options as arguments for a child process.
    pub fn to_args(&self) -> Vec<String> {
        let options =
            [("--tls-ca-file", &self.tls_ca_file), ("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key)];
        let given = options.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        given.flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> TlsArgs {
        let own = |text: Option<&str>| text.map(str::to_owned);
        TlsArgs { tls_ca_file: own(ca), tls_cert: own(cert), tls_key: own(key) }
    }

    #[test]
    fn sets_are_complete_or_refused() {
        assert_eq!(args(None, None, None).paths(), Ok(None));
        let paths = args(Some("ca"), Some("cert"), None).paths().expect("complete").expect("given");
        assert_eq!((paths.ca.as_str(), paths.cert.as_str(), paths.key.as_str()), ("ca", "cert", "cert"));
        assert!(args(None, Some("cert"), Some("key")).paths().is_err());
        assert!(args(Some("ca"), None, None).paths().is_err());
    }

    #[test]
    fn files_that_do_not_exist_are_named() {
        let error = args(Some("/no/ca.pem"), Some("/no/cert.pem"), None).comm_config(None).expect_err("missing");
        assert!(error.contains("/no/ca.pem"), "{error}");
    }

    #[test]
    fn children_get_the_same_options() {
        assert_eq!(args(Some("a"), None, Some("k")).to_args(), ["--tls-ca-file", "a", "--tls-key", "k"]);
        assert_eq!(args(Some("a"), None, None).default_scheme(), "tls");
        assert_eq!(args(None, None, None).default_scheme(), "tcp");
    }
}

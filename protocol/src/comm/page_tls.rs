//! TLS for pages: the server shows a certificate, and callers (browsers, scrapers, probes) show none.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::tls::{certificates, pem_text};
use crate::error::CommError;

/// The certificate of an HTTP server (`distributed.scheduler.dashboard.tls`). Cheap to clone.
#[derive(Clone)]
pub struct PageTls(TlsAcceptor);

impl PageTls {
    /// Loads a certificate (chain) and its private key. Each is a path, or PEM text if it has a line break; both may be in
    /// one file.
    ///
    /// # Errors
    /// [`CommError::Tls`] saying which part cannot be read or does not fit.
    pub fn load(cert: &str, key: &str) -> Result<PageTls, CommError> {
        let failed = |error: &dyn fmt::Display| CommError::Tls(format!("the pages' certificate: {error}"));
        let chain = certificates("certificate", cert)?;
        let key = PrivateKeyDer::from_pem_slice(&pem_text("key", key)?).map_err(|error| failed(&error))?;
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| failed(&error))?;
        Ok(PageTls(TlsAcceptor::from(Arc::new(server))))
    }

    /// Speaks TLS over a connection that a caller has made. Waits for the caller for as long as it takes.
    ///
    /// # Errors
    /// When the caller does not speak TLS, or goes away.
    pub async fn accept<S>(&self, stream: S) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        self.0.accept(stream).await
    }
}

impl fmt::Debug for PageTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageTls")
    }
}

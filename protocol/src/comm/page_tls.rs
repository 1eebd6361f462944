//! TLS for pages: the server shows a certificate, and callers (browsers, scrapers, probes) show none.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::tls::{TlsConfig, Verifier, certificates, pem_text};
use crate::error::CommError;

/// The certificate of an HTTP server (`distributed.scheduler.dashboard.tls`). Cheap to clone.
#[derive(Clone)]
pub struct PageTls {
    acceptor: TlsAcceptor,
    chain: Arc<[CertificateDer<'static>]>,
}

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
            .with_single_cert(chain.clone(), key)
            .map_err(|error| failed(&error))?;
        Ok(PageTls { acceptor: TlsAcceptor::from(Arc::new(server)), chain: chain.into() })
    }

    /// How to read pages of other processes of the cluster: they show one of these certificates, or one that is signed by
    /// these or by the authority of the cluster's own connections. Names are not checked, as between dask's processes.
    ///
    /// # Errors
    /// When such a certificate cannot sign.
    pub fn reader(&self, cluster: Option<&TlsConfig>) -> Result<ClientConfig, CommError> {
        let provider = Arc::new(ring::default_provider());
        let trusted = self.chain.iter().chain(cluster.into_iter().flat_map(TlsConfig::anchors)).cloned().collect();
        let verifier = Verifier::new(trusted, &provider)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CommError::Tls(error.to_string()))?;
        Ok(client.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }

    /// Speaks TLS over a connection that a caller has made. Waits for the caller for as long as it takes.
    ///
    /// # Errors
    /// When the caller does not speak TLS, or goes away.
    pub async fn accept<S>(&self, stream: S) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        self.acceptor.accept(stream).await
    }
}

impl fmt::Debug for PageTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageTls")
    }
}

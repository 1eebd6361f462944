//! Mutual TLS as upstream does it: both ends show a certificate signed by the configured authority, and host names are
//! not checked. `Security.temporary()` uses one self-signed certificate as authority and as every end's own, so a trust
//! anchor is accepted as a peer's certificate too; the TLS signature still proves that the peer has its key.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::CommError;

/// One role's certificates, ready for use at both ends. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    client_with_sni: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    anchors: Arc<[CertificateDer<'static>]>,
}

impl TlsConfig {
    /// Loads authority, certificate (chain) and private key. Each is a path, or PEM text if it has a line break. The
    /// key may stand in the certificate's file: then pass the same text twice.
    ///
    /// # Errors
    /// [`CommError::Tls`] saying which part cannot be read or does not fit.
    pub fn load(ca: &str, cert: &str, key: &str) -> Result<TlsConfig, CommError> {
        TlsConfig::load_versions(ca, cert, key, TlsVersions::default())
    }

    /// As [`TlsConfig::load`], for these versions of TLS only.
    ///
    /// # Errors
    /// As there; also when no version is left.
    pub fn load_versions(ca: &str, cert: &str, key: &str, versions: TlsVersions) -> Result<TlsConfig, CommError> {
        let anchors = certificates("CA", ca)?;
        let chain = certificates("certificate", cert)?;
        let key_pem = pem_text("key", key)?;
        let key =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| CommError::Tls(format!("cannot read key: {e}")))?;
        TlsConfig::from_der(anchors, chain, key, versions)
    }

    fn from_der(
        anchors: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        versions: TlsVersions,
    ) -> Result<TlsConfig, CommError> {
        let versions = versions.supported();
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier::new(anchors.clone(), &provider)?);
        let failed = |e: Error| CommError::Tls(e.to_string());
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(failed)?;
        let client_with_sni = Arc::new(client.clone());
        client.enable_sni = false;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(failed)?;
        Ok(TlsConfig { client: Arc::new(client), client_with_sni, server: Arc::new(server), anchors: anchors.into() })
    }

    /// The authority's certificates.
    pub(super) fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    pub(super) fn connector(&self, with_sni: bool) -> TlsConnector {
        TlsConnector::from(Arc::clone(if with_sni { &self.client_with_sni } else { &self.client }))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }
}

/// Which versions of TLS are spoken (`distributed.comm.tls.min-version`, `max-version`); by default 1.2 and 1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsVersions {
    /// Not 1.2.
    pub at_least_1_3: bool,
    /// Not 1.3.
    pub at_most_1_2: bool,
}

impl TlsVersions {
    fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        let versions = [(!self.at_least_1_3, &TLS12), (!self.at_most_1_2, &TLS13)];
        versions.into_iter().filter(|(spoken, _)| *spoken).map(|(_, version)| version).collect()
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

/// The name to ask a server for; without one, its IP address, which is not sent.
pub(super) fn server_name(name: Option<&str>, ip: IpAddr) -> Result<ServerName<'static>, CommError> {
    match name {
        None => Ok(ServerName::from(ip)),
        Some(name) => {
            ServerName::try_from(name.to_owned()).map_err(|e| CommError::Tls(format!("server name {name:?}: {e}")))
        }
    }
}

pub(super) fn pem_text(what: &str, path_or_pem: &str) -> Result<Vec<u8>, CommError> {
    if path_or_pem.contains('\n') {
        return Ok(path_or_pem.as_bytes().to_vec());
    }
    std::fs::read(Path::new(path_or_pem))
        .map_err(|e| CommError::Tls(format!("cannot read {what} {path_or_pem:?}: {e}")))
}

pub(super) fn certificates(what: &str, path_or_pem: &str) -> Result<Vec<CertificateDer<'static>>, CommError> {
    let pem = pem_text(what, path_or_pem)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|e| CommError::Tls(format!("cannot read {what}: {e}")))?;
    if found.is_empty() {
        return Err(CommError::Tls(format!("cannot read {what}: there is no certificate in it")));
    }
    Ok(found)
}

/// Accepts certificates signed by the anchors, and the anchors themselves.
#[derive(Debug)]
pub(super) struct Verifier {
    anchors: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        anchors: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, CommError> {
        let mut roots = RootCertStore::empty();
        for anchor in &anchors {
            roots.add(anchor.clone()).map_err(|e| CommError::Tls(format!("CA certificate: {e}")))?;
        }
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider))
            .build()
            .map_err(|e| CommError::Tls(format!("CA certificate: {e}")))?;
        Ok(Verifier { anchors, roots, clients, algorithms: provider.signature_verification_algorithms })
    }

    fn is_anchor(&self, certificate: &CertificateDer<'_>) -> bool {
        self.anchors.iter().any(|anchor| anchor.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.is_anchor(end_entity) {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.is_anchor(end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        self.clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

//! TLS to shadows: rustls with the ring provider, the version of HTTP by ALPN, sessions resumed.

use crate::config::{EndpointHost, ShadowConfig, TlsConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// HTTP/2 over TLS (RFC 9113, 3.1).
const H2: &[u8] = b"h2";

/// Why a shadow's TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file of authorities cannot be read.
    #[error("shadow {shadow}: cannot read ca_file {}: {source}", path.display())]
    Read {
        /// Name of the shadow.
        shadow: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of authorities is no PEM, or one of its certificates is none.
    #[error("shadow {shadow}: ca_file {} is not usable: {message}", path.display())]
    Authorities {
        /// Name of the shadow.
        shadow: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The system has no authorities, and no file was named.
    #[error("shadow {shadow}: no certificate authorities found on this system; name a ca_file ({message})")]
    NoSystemAuthorities {
        /// Name of the shadow.
        shadow: String,
        /// What the search said.
        message: String,
    },
    /// The name to verify is no DNS name and no address.
    #[error("shadow {shadow}: {name:?} is no valid server name")]
    ServerName {
        /// Name of the shadow.
        shadow: String,
        /// The name.
        name: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("shadow {shadow}: cannot set up tls: {source}")]
    Library {
        /// Name of the shadow.
        shadow: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Whether the TLS settings of `shadow` can be used: reads the file of authorities, and connects nowhere.
///
/// # Errors
/// What is wrong with them.
pub fn check_tls(shadow: &ShadowConfig) -> Result<(), TlsError> {
    TlsClient::build(shadow).map(|_| ())
}

/// The protocol that is offered by ALPN (RFC 7301), the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// `http/1.1`; a server that knows no ALPN will do.
    Http1,
    /// `h2`; a server that does not choose it is refused.
    Http2,
}

/// One shadow's TLS settings, ready for use.
pub(super) struct TlsClient {
    http1: TlsConnector,
    http2: TlsConnector,
    /// A server that refuses what ALPN offers was logged.
    refusal_logged: Once,
    shadow: String,
    server_name: ServerName<'static>,
    authorities_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl TlsClient {
    /// `None` for a shadow without TLS.
    pub(super) fn build(shadow: &ShadowConfig) -> Result<Option<Self>, TlsError> {
        let Some(tls) = &shadow.tls else { return Ok(None) };
        let server_name = server_name(shadow, tls)?;
        let authorities_pem = read_authorities(shadow, tls)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Library { shadow: shadow.name.clone(), source })?;
        let mut config = if tls.insecure_skip_verify {
            tracing::warn!(shadow = %shadow.name, "the shadow's certificate is not verified");
            let verifier = Arc::new(TrustAnyone { provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            let roots = match (&authorities_pem, &tls.ca_file) {
                (Some(pem), Some(path)) => parse_authorities(shadow, path, pem)?,
                _ => system_authorities(shadow)?,
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = config.clone();
        http2.alpn_protocols = vec![H2.to_vec()];
        // A session knows which protocol it was for.
        http2.resumption = Resumption::default();
        Ok(Some(Self {
            http1: TlsConnector::from(Arc::new(config)),
            http2: TlsConnector::from(Arc::new(http2)),
            refusal_logged: Once::new(),
            shadow: shadow.name.clone(),
            server_name,
            authorities_pem,
        }))
    }

    /// Whether the same authorities would be trusted if it were built anew from the same configuration.
    pub(super) fn has_authorities_of(&self, other: &Self) -> bool {
        self.authorities_pem == other.authorities_pem
    }

    /// # Errors
    /// The handshake failed, or the server does not speak what was offered.
    pub(super) async fn handshake(&self, stream: TcpStream, alpn: Alpn) -> io::Result<TlsStream<TcpStream>> {
        let connector = match alpn {
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
        };
        let stream = connector.connect(self.server_name.clone(), stream).await.inspect_err(|error| {
            if is_no_protocol(error) {
                self.log_refusal();
            }
        })?;
        if alpn == Alpn::Http2 && stream.get_ref().1.alpn_protocol() != Some(H2) {
            self.log_refusal();
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it does not speak HTTP/2 (see protocol): it did not choose h2 by ALPN",
            ));
        }
        Ok(stream)
    }

    /// Once: the requests are counted.
    fn log_refusal(&self) {
        let shadow = &self.shadow;
        self.refusal_logged.call_once(|| {
            tracing::warn!(%shadow, "the shadow's TLS refuses what ALPN offers; does its `protocol` fit?");
        });
    }
}

/// The server knows ALPN, but not what was offered (RFC 7301, 3.2).
fn is_no_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

fn server_name(shadow: &ShadowConfig, tls: &TlsConfig) -> Result<ServerName<'static>, TlsError> {
    let name = match (&tls.server_name, &shadow.endpoint.host) {
        (Some(name), _) | (None, EndpointHost::Name(name)) => name.trim_end_matches('.').to_owned(),
        (None, EndpointHost::Ip(ip)) => return Ok(ServerName::IpAddress((*ip).into())),
    };
    ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName { shadow: shadow.name.clone(), name })
}

fn read_authorities(shadow: &ShadowConfig, tls: &TlsConfig) -> Result<Option<Vec<u8>>, TlsError> {
    let Some(path) = &tls.ca_file else { return Ok(None) };
    let pem = std::fs::read(path).map_err(|source| TlsError::Read {
        shadow: shadow.name.clone(),
        path: path.clone(),
        source,
    })?;
    Ok(Some(pem))
}

fn parse_authorities(
    shadow: &ShadowConfig,
    path: &std::path::Path,
    pem: &[u8],
) -> Result<RootCertStore, TlsError> {
    let refused = |message: String| TlsError::Authorities {
        shadow: shadow.name.clone(),
        path: path.to_owned(),
        message,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn system_authorities(shadow: &ShadowConfig) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _refused) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let message = found.errors.first().map_or_else(|| "none installed".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemAuthorities { shadow: shadow.name.clone(), message });
    }
    Ok(roots)
}

/// `insecure_skip_verify`: any certificate will do, but the handshake must still be signed by its key.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

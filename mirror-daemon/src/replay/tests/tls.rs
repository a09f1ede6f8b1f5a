use super::support::*;
use crate::config::{ShadowConfig, TlsConfig};
use crate::drop_reason::DropReason;
use crate::replay::{TlsError, check_tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(super) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Accepts TLS with a certificate for `shadow.test`, and chooses among these protocols.
pub(super) fn tls_acceptor(authority: &CertifiedIssuer<'static, KeyPair>, alpn: &[&[u8]]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["shadow.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A TLS shadow that speaks HTTP/1.1, and would speak h2.
async fn tls_shadow(authority: &CertifiedIssuer<'static, KeyPair>) -> SocketAddr {
    let acceptor = tls_acceptor(authority, &[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                Peer::new(stream).serve().await;
            });
        }
    });
    address
}

pub(super) fn tls_config(address: SocketAddr, files: &TempDir, pem: &str) -> ShadowConfig {
    let ca_file = files.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let mut config = config(address);
    config.tls = Some(TlsConfig {
        ca_file: Some(ca_file),
        server_name: Some("shadow.test".to_owned()),
        insecure_skip_verify: false,
    });
    config
}

#[tokio::test]
async fn custom_authority_is_trusted_and_the_connection_pooled() {
    let (files, authority) = (TempDir::new().unwrap(), authority());
    let address = tls_shadow(&authority).await;
    let mut rig = Rig::new(tls_config(address, &files, &authority.pem()));
    for _ in 0..5 {
        rig.send_and_settle(get()).await;
        rig.send_and_settle(chunked(buffered(&vec![b'x'; 300_000], ""))).await;
    }
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (10, 1));
}

#[tokio::test]
async fn authority_that_can_not_be_read_any_more_is_in_the_way_of_changed_shadows_only() {
    let (files, authority) = (TempDir::new().unwrap(), authority());
    let config = tls_config(tls_shadow(&authority).await, &files, &authority.pem());
    let mut rig = Rig::new(config.clone());
    rig.send_and_settle(get()).await;
    std::fs::remove_file(files.path().join("ca.pem")).unwrap();
    let reconfigure = |rig: &Rig, config: ShadowConfig| {
        rig.replayer.reconfigure(vec![(Arc::new(config), Arc::clone(&rig.ledger))])
    };
    reconfigure(&rig, config.clone()).unwrap();
    rig.handle = rig.replayer.handle();
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 1));
    let changed = ShadowConfig { max_in_flight: 1, ..config };
    assert!(reconfigure(&rig, changed).is_err());
}

#[tokio::test]
async fn wrong_authority_and_wrong_name_are_tls_losses_unless_told_otherwise() {
    let (files, issuer) = (TempDir::new().unwrap(), authority());
    let address = tls_shadow(&issuer).await;
    let wrong_authority = tls_config(address, &files, &authority().pem());
    let mut rig = Rig::new(wrong_authority.clone());
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Tls).value(), 1);

    let mut wrong_name = tls_config(address, &files, &issuer.pem());
    wrong_name.tls.as_mut().unwrap().server_name = None;
    let mut rig = Rig::new(wrong_name);
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Tls).value(), 1);

    let mut insecure = wrong_authority;
    insecure.tls.as_mut().unwrap().insecure_skip_verify = true;
    let mut rig = Rig::new(insecure);
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.replayed.value(), 1);
}

#[test]
fn unusable_settings_are_named_ahead() {
    let files = TempDir::new().unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let no_certificate = tls_config(address, &files, "hello");
    assert!(matches!(check_tls(&no_certificate), Err(TlsError::Authorities { .. })));
    let mut no_file = no_certificate;
    no_file.tls.as_mut().unwrap().ca_file = Some("/nonexistent/ca.pem".into());
    let message = check_tls(&no_file).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/ca.pem"), "{message}");
    let mut no_name = tls_config(address, &files, &authority().pem());
    assert!(check_tls(&no_name).is_ok());
    no_name.tls.as_mut().unwrap().server_name = Some("not a name".to_owned());
    assert!(matches!(check_tls(&no_name), Err(TlsError::ServerName { .. })));
}

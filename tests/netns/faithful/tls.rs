//! Shadows behind TLS with an authority of their own.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::corpus::{Ids, Sent, chunked, keep_alive};
use super::expected::assert_same;
use super::rig::{DOWNSTREAM, GATEWAY_PORT, LIMIT, World, of_shadow};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `shadow.test` and for the shadow's address, and its key.
pub(crate) fn certificate(authority: &Authority) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["shadow.test".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Role::Shadow.v4())));
    (params.signed_by(&key, authority).unwrap(), key)
}

/// Takes TLS off connections and passes their bytes on, as long as the test lives.
fn start_tls(netns: &Netns, (listen, to): (SocketAddr, SocketAddr), authority: &Authority) {
    let (certificate, key) = certificate(authority);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = netns.run(|| TcpListener::bind(listen)).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let netns = netns.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        netns.run(|| runtime.block_on(relay(listener, acceptor, to)))
    });
}

async fn relay(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us breaks off here.
            let mut outer = acceptor.accept(stream).await?;
            let mut inner = tokio::net::TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut outer, &mut inner).await
        });
    }
}

#[test]
fn shadow_behind_tls_is_sent_the_same_bytes_when_it_is_trusted_and_nothing_when_not() {
    if !root_or_skip("shadow_behind_tls_is_sent_the_same_bytes_when_it_is_trusted_and_nothing_when_not") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let authority = authority();
    let ca_file = world.lab.dir().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let apps: Vec<TestApp> = (9000..9003)
        .map(|port| TestApp::start(&world.lab.shadow, Role::Shadow.at(port + 10), LogMode::Full).unwrap())
        .collect();
    for (port, app) in (9443..).zip(&apps) {
        start_tls(&world.lab.shadow, (Role::Shadow.at(port), app.address()), &authority);
    }
    let ca = format!("ca_file = \"{}\"", ca_file.display());
    let shadow = |name: &str, port: u16, tls: &str| {
        format!(
            "[[shadow]]\nname = \"{name}\"\nurl = \"https://10.77.0.4:{port}\"\nstream_window = \"16MiB\"\n[shadow.tls]\n{tls}\n"
        )
    };
    let config = [
        format!("[capture]\n{DOWNSTREAM}\n"),
        shadow("by_address", 9443, &ca),
        shadow("by_name", 9444, &format!("{ca}\nserver_name = \"shadow.test\"")),
        shadow("unverified", 9445, "insecure_skip_verify = true"),
        shadow("unknown_ca", 9443, ""),
        shadow("wrong_name", 9443, &format!("{ca}\nserver_name = \"other.test\"")),
        "[[route]]\n[[route.rule]]\nmirror = [{ shadow = \"by_address\" }, { shadow = \"by_name\" }, \
         { shadow = \"unverified\" }, { shadow = \"unknown_ca\" }, { shadow = \"wrong_name\" }]\n"
            .to_owned(),
    ];
    let watch = world.watch(&world.lab.gateway, &config.concat());
    let mut ids = Ids::default();
    let mut sent = chunked(&mut ids);
    sent.extend([
        Sent::get(ids.next()),
        Sent::post(ids.next(), 70_000),
        Sent::post(ids.next(), (1 << 20) + 1),
    ]);
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &sent);
    let books = watch.books(sent.len() as u64);
    for app in &apps {
        assert_same(&sent, &app.wait_for_requests(sent.len(), LIMIT).unwrap());
    }
    for refused in ["unknown_ca", "wrong_name"] {
        let reasons = &books["shadows"][refused]["dropped_by_reason"];
        assert_eq!(of_shadow(&books, refused, "replayed"), 0, "{books:#}");
        assert_eq!(reasons["tls"], sent.len(), "{books:#}");
    }
    watch.end();
}

use super::support::*;
use crate::drop_reason::DropReason;
use crate::replay::tests::support::*;
use crate::replay::tests::tls::{authority, tls_acceptor, tls_config};
use ::h2::server;
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS shadow that speaks whatever was chosen, HTTP/1.1 when nothing was.
async fn tls_shadow(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    serve_h2(server::Builder::new(), stream, connection, Call::serve).await;
                } else {
                    Peer::new(stream).serve().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn h2_is_chosen_by_alpn_and_http1_goes_on_beside_it() {
    let (files, authority) = (TempDir::new().unwrap(), authority());
    let address = tls_shadow(tls_acceptor(&authority, &[b"h2", b"http/1.1"])).await;
    let mut rig = Rig::new(tls_config(address, &files, &authority.pem()));
    for _ in 0..5 {
        rig.offer(h2_get());
        rig.offer(h2_post(&vec![b'x'; 300_000]));
        rig.send_and_settle(get()).await;
    }
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (15, 15));
    assert_eq!(rig.ledger.connections_opened.value(), 2, "one for each version");
}

#[tokio::test]
async fn server_without_h2_is_a_tls_loss_for_http2_alone() {
    let (files, authority) = (TempDir::new().unwrap(), authority());
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let address = tls_shadow(tls_acceptor(&authority, alpn)).await;
        let mut rig = Rig::new(tls_config(address, &files, &authority.pem()));
        rig.send_and_settle(h2_get()).await;
        assert_eq!(rig.ledger.dropped.of(DropReason::Tls).value(), 1);
        rig.send_and_settle(get()).await;
        assert_eq!(rig.ledger.replayed.value(), 1);
    }
}

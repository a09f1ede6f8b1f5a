//! Against an API server of a few lines, on loopback.

use super::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

/// Answers one connection: refuses what is about pods, and has the Gateway API's kinds but `v1` grants.
fn serve(listener: &TcpListener) -> Option<()> {
    let mut stream = BufReader::new(listener.accept().ok()?.0);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let begin = head.len();
            (stream.read_line(&mut head).ok()? > 0).then_some(())?;
            let line = head[begin..].to_lowercase();
            length =
                line.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let (code, answer) = answer(head.split(' ').nth(1)?, &body);
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.get_mut().write_all((head + &answer).as_bytes()).ok()?;
    }
}

fn answer(uri: &str, body: &[u8]) -> (u16, Value) {
    match uri {
        REVIEWS => {
            let review: Value = serde_json::from_slice(body).unwrap();
            let resource = &review["spec"]["resourceAttributes"];
            (201, json!({ "status": { "allowed": resource["resource"] != "pods" } }))
        }
        "/apis/gateway.networking.k8s.io/v1" => {
            (200, json!({ "resources": [{ "name": "httproutes" }, { "name": "gateways" }] }))
        }
        "/apis/gateway.networking.k8s.io/v1beta1" => (
            200,
            json!({ "resources": [{ "name": "referencegrants" }, { "name": "referencegrants/status" }] }),
        ),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&limit=500" => {
            let pod = |name: &str, phase: &str| {
                json!({
                    "metadata": { "namespace": "gw", "name": name, "uid": format!("u-{name}") },
                    "status": { "phase": phase }
                })
            };
            (200, json!({ "items": [pod("a", "Running"), pod("job", "Succeeded")] }))
        }
        _ => (404, json!({ "code": 404, "message": format!("no {uri}") })),
    }
}

fn kubeconfig(dir: &std::path::Path, server: &str) -> Access {
    let file = dir.join("kubeconfig");
    let cluster = format!("clusters: [{{ name: c, cluster: {{ server: \"{server}\" }} }}]");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        contexts: [{ name: a, context: { cluster: c, user: u } }]\nusers: [{ name: u, user: { token: t } }]\n";
    std::fs::write(&file, format!("{text}{cluster}\n")).unwrap();
    Access::File(file)
}

#[test]
fn rights_kinds_and_pods_are_as_the_server_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || serve(&listener));
    let dir = tempfile::tempdir().unwrap();
    let answers = ask(&kubeconfig(dir.path(), &server), Some("node-1")).unwrap();
    assert_eq!(answers.server, server);
    let refused: Vec<_> = answers.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["list pods", "watch pods"]);
    assert_eq!(answers.absent, [Kind::RouteOption, Kind::Upstream]);
    let pod = NodePod { name: "gw/a".into(), cgroup_uid: "u-a".into() };
    assert_eq!(answers.pods, Some(vec![pod]));
}

#[test]
fn server_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let why = ask(&kubeconfig(dir.path(), "http://127.0.0.1:1/"), None).unwrap_err();
    assert!(why.starts_with("http://127.0.0.1:1/: ") && why.contains("refused"), "{why}");
}

//! The harness itself: what it builds works, and goes away again.

use std::path::PathBuf;
use std::time::Duration;

use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::load::Load;
use mirror_tests::client::{self, Connection};
use mirror_tests::haproxy::{Haproxy, Sides};
use mirror_tests::netns::{Lab, Netns, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::process::Launch;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::{bpf, loadtool};

const HOST: &str = "shadowing.example";

fn proxied(lab: &Lab) -> (TestApp, Nginx) {
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    let listen = [Role::Gateway.at(8080), Role::Gateway.at_v6(8080)];
    let nginx = Nginx::start(&lab.gateway, &NginxConfig::new(listen, app.address())).unwrap();
    (app, nginx)
}

#[test]
fn nginx_in_a_lab_proxies_to_the_app_over_both_families() {
    if !root_or_skip("nginx_in_a_lab_proxies_to_the_app_over_both_families") {
        return;
    }
    let lab = Lab::new().unwrap();
    let (app, nginx) = proxied(&lab);
    for to in [Role::Gateway.at(8080), Role::Gateway.at_v6(8080)] {
        let answer = client::get(&lab.client, to, HOST, "/anything?id=1").unwrap();
        assert_eq!(answer.status, 200);
        assert!(String::from_utf8_lossy(&answer.body).contains(HOST));
    }
    assert!(app.requests().iter().all(|request| request.host().as_deref() == Some(HOST)));
    mirror_tests::wait::until_true("nginx has logged both", Duration::from_secs(30), || {
        nginx.access_log().unwrap().len() == 2
    })
    .unwrap();
    assert_eq!(nginx.access_log().unwrap()[0]["host"], HOST);
    nginx.stop().unwrap();
}

#[test]
fn lab_leaves_no_namespace_process_or_directory_behind() {
    if !root_or_skip("lab_leaves_no_namespace_process_or_directory_behind") {
        return;
    }
    let lab = Lab::new().unwrap();
    let namespaces: Vec<PathBuf> = Role::PODS
        .into_iter()
        .chain([Role::Node])
        .map(|role| lab.netns(role).path().unwrap().to_path_buf())
        .collect();
    let dir = lab.dir().to_path_buf();
    let (app, nginx) = proxied(&lab);
    let proc = PathBuf::from(format!("/proc/{}", nginx.pid()));
    let stray = Launch::new("sleep").arg("60").in_netns(&lab.shadow).spawn().unwrap();
    let stray_proc = PathBuf::from(format!("/proc/{}", stray.pid()));
    assert!(proc.exists() && stray_proc.exists() && dir.exists());
    assert!(namespaces.iter().all(|path| path.exists()));
    drop((nginx, app, stray, lab));
    assert!(!proc.exists() && !stray_proc.exists() && !dir.exists());
    assert!(namespaces.iter().all(|path| !path.exists()));
}

#[test]
fn lab_has_no_way_out() {
    if !root_or_skip("lab_has_no_way_out") {
        return;
    }
    let lab = Lab::new().unwrap();
    for netns in [&lab.client, &lab.gateway, &lab.production, &lab.shadow, &lab.node] {
        let routes = Launch::new("ip").args(["route", "show", "default"]).in_netns(netns).run().unwrap();
        assert_eq!(routes, "");
    }
}

#[test]
fn what_a_dead_run_left_is_swept_and_what_lives_stays() {
    if !root_or_skip("what_a_dead_run_left_is_swept_and_what_lives_stays") {
        return;
    }
    // Ours is alive, and 4194304 is above the highest process id there can be.
    let (dead, alive) =
        ("mirror-lab-4194304-0-gateway", format!("mirror-lab-{}-999-gateway", std::process::id()));
    for name in [dead, &alive] {
        Launch::new("ip").args(["netns", "add", name]).run().unwrap();
    }
    // The sweep is done once per process; a fresh process does it again.
    let this = std::env::current_exe().unwrap();
    Launch::new(this).args(["--exact", "lab::lab_has_no_way_out"]).run().unwrap();
    let left = |name: &str| Netns::named(name).path().unwrap().exists();
    let (dead_left, alive_left) = (left(dead), left(&alive));
    drop(Launch::new("ip").args(["netns", "delete", &alive]).run());
    assert_eq!((dead_left, alive_left), (false, true));
}

#[test]
fn fixed_rate_load_through_nginx_loses_nothing() {
    if !root_or_skip("fixed_rate_load_through_nginx_loses_nothing") {
        return;
    }
    let lab = Lab::new().unwrap();
    let (app, _nginx) = proxied(&lab);
    let load = Load::new(Role::Gateway.at(8080), HOST, 2000);
    let report = load.run(&lab.client).unwrap();
    assert_eq!((report.good, report.failed), (2000, 0), "{:?}", report.first_failure);
    assert!(app.log().missing(2000).is_empty());
    assert_eq!(app.log().summary().duplicates, 0);
}

#[test]
fn load_tools_report_what_the_app_counted() {
    if !root_or_skip("load_tools_report_what_the_app_counted") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    let report = loadtool::h2load_h1(&lab.client, app.address(), HOST, (4, 1000)).unwrap();
    assert_eq!((report.answers, report.bad, report.errors), (1000, 0, 0));
    assert_eq!(app.log().summary().requests, 1000);
    let report = loadtool::wrk(&lab.client, app.address(), HOST, (4, 1)).unwrap();
    assert!(report.answers > 0 && report.errors == 0);
    // wrk leaves the answers to its last requests unread.
    assert!(app.log().summary().requests - 1000 >= report.answers);
}

#[test]
fn haproxy_sends_the_proxy_protocol_to_nginx() {
    if !root_or_skip("haproxy_sends_the_proxy_protocol_to_nginx") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    let config =
        NginxConfig { proxy_protocol: true, ..NginxConfig::new([Role::Gateway.at(8080)], app.address()) };
    let _nginx = Nginx::start(&lab.gateway, &config).unwrap();
    for (port, version) in [(9001, 1), (9002, 2)] {
        let sides = Sides { send_proxy_version: Some(version), tcp: true, ..Sides::default() };
        let listen = Role::Node.at(port);
        let _haproxy = Haproxy::start(&lab.node, listen, Role::Gateway.at(8080), sides).unwrap();
        assert_eq!(client::get(&lab.client, listen, HOST, "/").unwrap().status, 200);
    }
    let clients: Vec<_> = app.requests().iter().filter_map(|request| request.field("x-client")).collect();
    assert_eq!(clients, [Role::Client.v4().to_string(), Role::Client.v4().to_string()]);
}

#[test]
fn process_joins_the_cgroup_it_is_given() {
    if !root_or_skip("process_joins_the_cgroup_it_is_given") {
        return;
    }
    let cgroup = Cgroup::new().unwrap();
    let path = cgroup.path().to_path_buf();
    let sleeper = Launch::new("sleep").arg("60").in_cgroup(&cgroup).spawn().unwrap();
    let joined =
        || std::fs::read_to_string(path.join("cgroup.procs")).unwrap().contains(&sleeper.pid().to_string());
    mirror_tests::wait::until_true("it joins", Duration::from_secs(30), joined).unwrap();
    assert_eq!(bpf::attached_to_cgroup(&path).unwrap(), Vec::<String>::new());
    drop(sleeper);
    drop(cgroup);
    assert!(!path.exists());
}

#[test]
fn nothing_is_attached_in_a_fresh_lab() {
    if !root_or_skip("nothing_is_attached_in_a_fresh_lab") {
        return;
    }
    let lab = Lab::new().unwrap();
    assert_eq!(bpf::attached_in(&lab.gateway).unwrap(), Vec::<String>::new());
    assert!(Connection::open(&lab.client, Role::Gateway.at(1)).is_err());
}

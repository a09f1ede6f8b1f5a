//! The demonstration: live mirroring by a real kernel program, from a real nginx, and its end by SIGKILL.
//!
//! It does what the K8sGateway shadowing guide does: a request to `shadowing.example` is answered by
//! production, and the shadow's log shows the same request with the host `shadowing.example-shadow`.
//! `cargo xtask demo` builds what it needs and starts it. Exit code 0: everything was as it should be.

mod app;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use mirror_tests::client::Connection;
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::{bpf, cleanup, wait};

use app::App;

/// The host that the client asks for, as in the guide.
const HOST: &str = "shadowing.example";

/// The host that the shadow must see.
const SHADOW_HOST: &str = "shadowing.example-shadow";

/// What the client asks: method, target, body.
const REQUESTS: [(&str, &str, &str); 4] = [
    ("GET", "/headers", ""),
    ("GET", "/get?item=42", ""),
    ("POST", "/post", "a body that both of them get"),
    ("GET", "/status/200", ""),
];

/// The daemon's configuration, but for its admin address.
const CONFIG: &str = r#"[capture]
interfaces = ["eth0"]
leg   = "downstream"
ports = [8080]

[[shadow]]
name = "httpbin"
url  = "http://10.77.0.4:8000"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  match  = [{ path = { prefix = "/" } }]
  mirror = [{ shadow = "httpbin", percentage = 100 }]
"#;

/// How long anything in the demonstration may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Shows live mirroring between network namespaces. Needs root.
#[derive(Debug, Parser)]
struct Options {
    /// gunicorn of an environment with httpbin; without it the bundled app takes both parts.
    #[arg(long)]
    gunicorn: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match cleanup::release_all_at_signals().and_then(|()| show(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if cleanup::fail_if_interrupted().is_err() {
                // The thread that took the signal cleans up and ends the program.
                loop {
                    std::thread::park();
                }
            }
            eprintln!("\nthe demonstration failed: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is on the stage. The order of the fields is the order of the end.
struct Stage {
    gateway: Nginx,
    production: App,
    shadow: App,
    lab: Lab,
}

fn show(options: &Options) -> Result<()> {
    let stage = set_stage(options)?;
    headline("2. The mirror, beside the gateway: nginx knows nothing of it");
    println!("{}", indented(CONFIG));
    let mut daemon = Daemon::start(&stage.lab.gateway, CONFIG)?;
    println!("   mirror-daemon runs as process {} and is ready", daemon.pid());
    mirror_requests(&stage).with_context(|| format!("the daemon said:\n{}", daemon.output()))?;
    headline("4. The ledger: every request seen ends in exactly one entry");
    println!("{}", indented(&format!("{:#}", daemon.ledger()?)));
    kill_daemon(&stage, &mut daemon)?;
    headline("All was as it should be; everything is cleaned up");
    Ok(())
}

fn set_stage(options: &Options) -> Result<Stage> {
    headline("1. The stage: four network namespaces on a bridge, with no way out");
    let lab = Lab::new()?;
    let start_app = |role: Role| {
        let at = role.at(8000);
        App::start(options.gunicorn.as_deref(), lab.netns(role), at, &lab.dir().join(role.label()))
    };
    let (production, shadow) = (start_app(Role::Production)?, start_app(Role::Shadow)?);
    let config = NginxConfig::new([Role::Gateway.at(8080)], Role::Production.at(8000));
    let gateway = Nginx::start(&lab.gateway, &config)?;
    let kind = production.kind();
    println!("   client      {}", Role::Client.v4());
    println!(
        "   gateway     {}   nginx, process {}, proxies to production",
        Role::Gateway.at(8080),
        gateway.pid()
    );
    println!("   production  {}   {kind}", Role::Production.at(8000));
    println!("   shadow      {}   {kind}", Role::Shadow.at(8000));
    Ok(Stage { gateway, production, shadow, lab })
}

/// Sends the requests and checks that both apps have seen the same, but for the host.
fn mirror_requests(stage: &Stage) -> Result<()> {
    headline("3. Requests by way of the gateway");
    ask_production(stage)?;
    let seen = |app: &App| app.seen().map(|lines| (lines.len() >= REQUESTS.len()).then_some(lines));
    let production = wait::until("production logs every request", LIMIT, || seen(&stage.production))?;
    let mut shadow = wait::until("the shadow logs every request", LIMIT, || seen(&stage.shadow))?;
    // Copies travel over several connections at once, so that they may overtake each other: side by side they are
    // put in production's order. The requests of the demonstration all differ.
    shadow.sort_by_key(|copy| {
        production.iter().position(|line| line.method == copy.method && line.target == copy.target)
    });
    println!("\n   {:<50} the shadow's log", "production's log");
    for (left, right) in production.iter().zip(&shadow) {
        println!("   {:<50} {right}", left.to_string());
    }
    ensure!(production.len() == shadow.len(), "the shadow saw other requests than production");
    for (left, right) in production.iter().zip(&shadow) {
        ensure!(
            left.host == HOST && right.host == SHADOW_HOST,
            "the hosts are {} and {}",
            left.host,
            right.host
        );
        let same = left.method == right.method && left.target == right.target;
        ensure!(same, "the shadow saw {right} instead of {left}");
    }
    Ok(())
}

fn kill_daemon(stage: &Stage, daemon: &mut Daemon) -> Result<()> {
    headline("5. The mirror dies by SIGKILL: production goes on");
    let held = daemon.held_objects()?;
    println!("   before: {} kernel programs, {} links", held.programs.len(), held.links.len());
    ensure!(!held.programs.is_empty(), "the daemon holds no kernel program");
    daemon.kill();
    println!("   SIGKILL");
    ask_production(stage)?;
    let gone = || Ok(bpf::attached_in(&stage.lab.gateway)?.is_empty().then_some(()));
    if wait::until("nothing is attached", Duration::from_secs(2), gone).is_err() {
        // A clsact filter outlives its maker; it does nothing without the maker's heartbeat.
        let left = bpf::attached_in(&stage.lab.gateway)?;
        if !left.iter().all(|line| line.starts_with("tc:")) {
            bail!("still attached: {left:?}");
        }
        println!(
            "   after: clsact filters stay on this kernel; they are inert, and the next start sweeps them"
        );
        return ask_production(stage);
    }
    let freed = || Ok(bpf::still_loaded(&held).is_empty().then_some(()));
    wait::until("the kernel frees the programs", LIMIT, freed)?;
    println!("   after: no program attached, none loaded");
    Ok(())
}

/// Sends every request on one connection; each must be answered with 200.
fn ask_production(stage: &Stage) -> Result<()> {
    let mut connection = Connection::open(&stage.lab.client, Role::Gateway.at(8080))?;
    for (method, target, body) in REQUESTS {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}");
        let status = connection.exchange(request.as_bytes())?.status;
        println!("   {method} http://{HOST}{target} -> {status}");
        ensure!(status == 200, "production answered {status}:\n{}", stage.gateway.error_log());
    }
    Ok(())
}

fn headline(text: &str) {
    println!("\n== {text}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   | {line}")).collect::<Vec<_>>().join("\n")
}

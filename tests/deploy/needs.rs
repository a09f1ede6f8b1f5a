//! Nothing asks for more than it needs.

use crate::{document, documents, text, texts};
use mirror_daemon::cluster::probe::Right;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OVERLAYS: [&str; 2] = ["overlays/cgroup", "overlays/interface"];

fn pod(manifest: &Value) -> &Value {
    &manifest["spec"]["template"]["spec"]
}

fn container(manifest: &Value) -> &Value {
    &pod(manifest)["containers"][0]
}

#[test]
fn base_gives_no_capability_and_nothing_of_the_host() {
    let daemonset = document("base/daemonset.yaml");
    let pod = pod(&daemonset);
    for shared in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        assert_eq!(pod[shared], Value::Null, "{shared}");
    }
    assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "host paths are the overlays' matter");
    let context = &container(&daemonset)["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
}

#[test]
fn overlays_add_the_capabilities_of_their_way_of_capturing_and_no_others() {
    let added = |overlay: &str| {
        let patch = document(&format!("{overlay}/daemonset.yaml"));
        let context = &container(&patch)["securityContext"];
        assert_eq!(context.as_object().unwrap().len(), 1, "{overlay}: only capabilities are patched");
        texts(&context["capabilities"]["add"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(added("overlays/cgroup"), ["BPF", "NET_ADMIN"]);
    assert_eq!(added("overlays/interface"), ["BPF", "NET_ADMIN", "SYS_ADMIN"]);
}

#[test]
fn host_paths_are_read_only() {
    for overlay in OVERLAYS {
        let patch = document(&format!("{overlay}/daemonset.yaml"));
        let host: BTreeSet<&str> = pod(&patch)["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|volume| !volume["hostPath"].is_null())
            .map(|volume| volume["name"].as_str().unwrap())
            .collect();
        let mounts = container(&patch)["volumeMounts"].as_array().unwrap();
        let read_only: BTreeSet<&str> = mounts
            .iter()
            .filter(|mount| mount["readOnly"] == true)
            .map(|mount| mount["name"].as_str().unwrap())
            .collect();
        assert_eq!(host, read_only, "{overlay}");
    }
}

#[test]
fn rights_at_the_api_server_are_to_look_and_to_write_events() {
    for role in documents("base/rbac.yaml").iter().filter(|document| document["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            let (resources, verbs) = (texts(&rule["resources"]), texts(&rule["verbs"]));
            let wanted: &[&str] =
                if resources == ["events"] { &["create", "patch"] } else { &["list", "watch"] };
            assert_eq!(verbs, wanted, "{resources:?}");
            assert!(!texts(&rule["apiGroups"]).contains(&"*") && !resources.contains(&"*"), "{rule}");
            assert!(!resources.contains(&"secrets") && !resources.contains(&"configmaps"), "{rule}");
        }
    }
}

#[test]
fn rights_are_those_that_the_daemon_makes_use_of_and_no_others() {
    let mut given = BTreeSet::new();
    for role in documents("base/rbac.yaml").iter().filter(|document| document["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            for (group, resource, verb) in texts(&rule["apiGroups"])
                .into_iter()
                .flat_map(|group| {
                    texts(&rule["resources"]).into_iter().map(move |resource| (group, resource))
                })
                .flat_map(|(group, one)| {
                    texts(&rule["verbs"]).into_iter().map(move |verb| (group, one, verb))
                })
            {
                let dot = if group.is_empty() { "" } else { "." };
                given.insert(format!("{verb} {resource}{dot}{group}"));
            }
        }
    }
    let used: BTreeSet<String> = Right::all().iter().map(ToString::to_string).collect();
    assert_eq!(given, used);
}

#[test]
fn every_role_is_bound_to_the_daemon_alone() {
    let documents = documents("base/rbac.yaml");
    let names = |kind: &str, of: fn(&Value) -> &Value| -> BTreeSet<String> {
        let meant = documents.iter().filter(|document| document["kind"] == kind);
        meant.map(|document| of(document).as_str().unwrap().to_owned()).collect()
    };
    let roles = names("ClusterRole", |role| &role["metadata"]["name"]);
    assert_eq!(roles, names("ClusterRoleBinding", |binding| &binding["roleRef"]["name"]));
    for binding in documents.iter().filter(|document| document["kind"] == "ClusterRoleBinding") {
        let daemon =
            json!([{"kind": "ServiceAccount", "name": "mirror-daemon", "namespace": "mirror-system"}]);
        assert_eq!(binding["subjects"], daemon);
    }
}

#[test]
fn daemon_gives_way_to_production() {
    let class = document("base/priority-class.yaml");
    assert!(class["value"].as_i64().unwrap() < 0);
    assert_eq!(class["preemptionPolicy"], "Never");
    let daemonset = document("base/daemonset.yaml");
    assert_eq!(pod(&daemonset)["priorityClassName"], class["metadata"]["name"]);
    let limits = &container(&daemonset)["resources"]["limits"];
    assert!(limits["cpu"].is_string() && limits["memory"].is_string(), "{limits}");
    let update = &daemonset["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(update, &json!({"maxUnavailable": 1, "maxSurge": 0}), "two daemons on a node mirror twice");
}

#[test]
fn overlays_differ_in_how_they_capture_and_in_nothing_else() {
    let cgroup = text("base/mirror.toml");
    let interface = text("overlays/interface/mirror.toml");
    assert_eq!(interface.replace(", attach = \"interface\"", ""), cgroup);
    assert_ne!(interface, cgroup);
}

#[test]
fn configurations_are_right() {
    for name in ["base/mirror.toml", "overlays/interface/mirror.toml", "mirror.toml"] {
        let checked = mirror_daemon::config::Config::from_toml(&text(name), name);
        assert!(checked.is_ok(), "{}", checked.unwrap_err());
    }
}

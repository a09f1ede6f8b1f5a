//! Settings for a cluster.

use super::*;

#[test]
fn kubernetes_settings_are_read_and_have_defaults() {
    let config = Config::from_toml("", "t").unwrap();
    assert_eq!(config.kubernetes, KubernetesConfig::default());
    let text = "[kubernetes]\ngateway_api = true\nroute_selector = \"a=b\"\nalready_mirrored = \"take\"\nrequest_mirror_host = \"keep\"\n\
                cluster_domain = \"corp.example\"\n[[kubernetes.gateway]]\nname = \"http\"\nnamespace = \"gloo-system\"\n\
                pods = { selector = { matchLabels = { app = \"gw\" } }, namespace = \"pods\" }\n\
                [[kubernetes.gateway]]\nname = \"x\"\nnamespace = \"ns\"\npods = { selector = \"app\" }\n";
    let kubernetes = Config::from_toml(text, "t").unwrap_or_else(|faults| panic!("{faults}")).kubernetes;
    assert!(kubernetes.gateway_api);
    assert_eq!(kubernetes.already_mirrored, AlreadyMirrored::Take);
    assert_eq!(kubernetes.request_mirror_host, RequestMirrorHost::Keep);
    assert_eq!(kubernetes.cluster_domain, "corp.example");
    let [first, second] = kubernetes.gateways.as_slice() else { panic!("{:?}", kubernetes.gateways) };
    assert_eq!((first.gateway.as_str(), first.pod_namespace.as_str()), ("gloo-system/http", "pods"));
    assert_eq!(first.pod_selector.to_string(), "app in (gw)");
    assert_eq!((second.gateway.as_str(), second.pod_namespace.as_str()), ("ns/x", "ns"));
}

#[test]
fn faults_of_kubernetes_settings_name_their_keys() {
    for (text, expected) in [
        ("gateway_api = 1", "t:2: kubernetes.gateway_api: is 1; write true or false"),
        ("route_selector = \"a in b\"", "t:2: kubernetes.route_selector: is no label selector"),
        (
            "route_selector = { matchLabel = {} }",
            "t:2: kubernetes.route_selector.matchLabel: unknown key; did you mean `matchLabels`?",
        ),
        (
            "route_selector = { matchLabels = { a = 1 } }",
            "t:2: kubernetes.route_selector.matchLabels.a: is 1; write",
        ),
        (
            "route_selector = { matchExpressions = [{ key = \"a\", operator = \"Like\" }] }",
            "t:2: kubernetes.route_selector.matchExpressions[0].operator: is \"Like\"",
        ),
        (
            "already_mirrored = \"maybe\"",
            "t:2: kubernetes.already_mirrored: is \"maybe\"; write \"refuse\" or \"take\"",
        ),
        (
            "request_mirror_host = \"x\"",
            "t:2: kubernetes.request_mirror_host: is \"x\"; write \"suffix\" or \"keep\"",
        ),
        ("cluster_domain = \".local\"", "t:2: kubernetes.cluster_domain: \".local\" is no domain"),
        (
            "route_selektor = \"a\"",
            "t:2: kubernetes.route_selektor: unknown key; did you mean `route_selector`?",
        ),
        ("[[kubernetes.gateway]]\nname = \"x\"", "t:2: kubernetes.gateway[0].namespace: is missing"),
        (
            "[[kubernetes.gateway]]\nname = \"x\"\nnamespace = \"ns\"\npods = { selector = \"\" }",
            "t:5: kubernetes.gateway[0].pods.selector: is empty, and would select every pod",
        ),
    ] {
        let faults = Config::from_toml(&format!("[kubernetes]\n{text}\n"), "t").unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
}

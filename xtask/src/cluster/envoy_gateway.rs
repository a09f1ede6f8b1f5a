//! Envoy Gateway, a gateway with a control plane of its own, installed from its own chart.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::{binaries, images};
use crate::run;

const NAMESPACE: &str = "envoy-gateway-system";

/// How its release makes values from the chart's template, with images that are here.
const VALUES_TEMPLATE: &str = "values.tmpl.yaml";

/// Installs it and waits until it runs. Where it is, it stays.
///
/// # Errors
/// When helm fails; what it said is in the message.
pub(crate) fn install(layout: &Layout) -> Result<()> {
    let chart = layout.state().join("envoy-gateway-chart");
    drop(std::fs::remove_dir_all(&chart));
    run::run(Command::new("cp").arg("-r").arg(binaries::envoy_gateway_chart()?).arg(&chart))?;
    let template = std::fs::read_to_string(chart.join(VALUES_TEMPLATE)).context("the chart has no values")?;
    let values = template.replace("${GatewayImage}", &images::reference("envoy-gateway"));
    std::fs::write(chart.join("values.yaml"), values.replace("${GatewayImagePullPolicy}", "IfNotPresent"))?;
    let proxy = format!("global.images.envoyProxy.image={}", images::reference("envoy"));
    let mut helm = Command::new("nsenter");
    helm.arg(format!("--net=/run/netns/{}", layout.netns(1))).arg(binaries::dir()?.join("helm"));
    helm.arg("--kubeconfig").arg(layout.kubeconfig());
    helm.args(["upgrade", "--install", "eg", "--namespace", NAMESPACE, "--create-namespace"]).arg(&chart);
    helm.args(["--set", &proxy, "--wait", "--timeout", "5m"]);
    for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(place, layout.state().join("helm"));
    }
    let done = helm.stdin(Stdio::null()).output().context("cannot start helm")?;
    if !done.status.success() {
        bail!("helm failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

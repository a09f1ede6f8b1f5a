//! httpbin, the app of the K8sGateway guide, from PyPI in an environment of its own.

use std::path::PathBuf;

use super::Progress;
use super::python::Environment;

const ENVIRONMENT: Environment = Environment {
    name: "httpbin-1",
    packages: &["httpbin==0.10.2", "gunicorn==23.0.0"],
    modules: "httpbin, gunicorn",
};

/// The program that serves httpbin, if it was installed.
pub(crate) fn gunicorn() -> Option<PathBuf> {
    ENVIRONMENT.program("gunicorn")
}

/// Installs it; where that cannot be done, the demo takes the bundled app.
pub(super) fn install() {
    let progress = Progress::begin("httpbin (PyPI)");
    if gunicorn().is_some() {
        progress.is_there();
        return;
    }
    progress.installing();
    match ENVIRONMENT.create() {
        Ok(()) => progress.installed(),
        Err(why) => progress.left_out(&format!("the demo takes the bundled app instead: {why:#}")),
    }
}

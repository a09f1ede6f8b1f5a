//! The rules of the cluster, beside those of the configuration file.

use crate::cluster::ClusterThread;
use crate::cluster::client::{Access, ClientError};
use crate::cluster::rules::ClusterRules;
use crate::config::KubernetesConfig;
use crate::kube::{Resolved, Terms};
use crate::telemetry::snapshot::RulesStatus;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// How long after rules were refused they are tried again: what was in their way may be gone.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Watches the cluster's rules while the configuration wants them.
#[derive(Debug)]
pub(super) struct Cluster {
    kubeconfig: Option<PathBuf>,
    watched: Mutex<Option<Watched>>,
    /// The cluster's rules are not those that run.
    has_changed: Arc<Notify>,
    try_again_at: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Watched {
    rules: Arc<ClusterRules>,
    /// Last, so that it ends after what runs on it.
    _thread: ClusterThread,
}

impl Cluster {
    pub(super) fn new(kubeconfig: Option<&Path>) -> Self {
        Self {
            kubeconfig: kubeconfig.map(Path::to_owned),
            watched: Mutex::default(),
            has_changed: Arc::default(),
            try_again_at: Mutex::default(),
        }
    }

    /// The rules that belong to a configuration on these terms; `None`: it wants none, or they are not all
    /// known yet. Starts to watch where it was not wanted before. Blocks.
    ///
    /// # Errors
    /// There is no way to the API server. That it does not answer is none.
    pub(super) fn resolve(&self, terms: &Terms) -> anyhow::Result<Option<Arc<Resolved>>> {
        if !terms.settings.gateway_api {
            return Ok(None);
        }
        if let Some(rules) = self.rules() {
            return Ok(rules.resolve(terms));
        }
        let watched = self.watch(terms)?;
        *self.watched() = Some(watched);
        Ok(None)
    }

    /// A configuration on these terms runs now, with these rules of the cluster.
    pub(super) fn taken(&self, terms: &Terms, resolved: Option<&Resolved>) {
        self.retry(None);
        if !terms.settings.gateway_api {
            *self.watched() = None;
        } else if let Some(rules) = self.rules() {
            rules.taken(terms, resolved);
        }
    }

    /// A configuration was refused; one with these settings still runs.
    pub(super) fn refused(&self, running: &KubernetesConfig) {
        if running.gateway_api {
            self.retry(Instant::now().checked_add(TRY_AGAIN));
        } else {
            *self.watched() = None;
        }
    }

    /// Returns when the rules that run are not those of the cluster.
    pub(super) async fn changed(&self) {
        let again = *self.try_again_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = async {
            match again {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.has_changed.notified() => {}
            () = due => self.retry(None),
        }
    }

    /// How it stands; `None`: none are wanted.
    pub(super) fn status(&self) -> Option<RulesStatus> {
        self.rules().map(|rules| rules.status())
    }

    fn watch(&self, terms: &Terms) -> anyhow::Result<Watched> {
        let access = Access::find(self.kubeconfig.as_deref()).context("kubernetes.gateway_api")?;
        let thread = ClusterThread::start().context("no thread for the cluster")?;
        let (client_tx, client_rx) = std::sync::mpsc::sync_channel(1);
        thread.handle().spawn(async move {
            let _ = client_tx.send(access.client().await);
        });
        let client: Result<_, ClientError> = client_rx.recv().context("the cluster's thread has ended")?;
        let client = client.context("kubernetes.gateway_api")?;
        let has_changed = Arc::clone(&self.has_changed);
        let rules = Arc::new(ClusterRules::start(thread.handle(), client, terms.clone(), has_changed));
        tracing::info!(
            "rules are taken from the cluster, too; until they are known, those of the files hold alone"
        );
        Ok(Watched { rules, _thread: thread })
    }

    /// A copy, so that the pages need not wait while rules are made.
    fn rules(&self) -> Option<Arc<ClusterRules>> {
        self.watched().as_ref().map(|watched| Arc::clone(&watched.rules))
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retry(&self, at: Option<Instant>) {
        *self.try_again_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        contexts: [{ name: a, context: { cluster: c, user: u } }]\nusers: [{ name: u, user: {} }]\n\
        clusters: [{ name: c, cluster: { server: \"http://127.0.0.1:1\" } }]\n";

    #[test]
    fn cluster_is_watched_while_the_running_configuration_wants_it() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("kubeconfig");
        let (off, on) = (
            Terms::default(),
            Terms {
                settings: KubernetesConfig { gateway_api: true, ..KubernetesConfig::default() },
                ..Terms::default()
            },
        );
        let cluster = Cluster::new(Some(&file));
        assert!(cluster.resolve(&off).unwrap().is_none() && cluster.status().is_none());
        assert!(cluster.resolve(&on).is_err(), "there is no way to it");

        std::fs::write(&file, KUBECONFIG).unwrap();
        assert!(cluster.resolve(&on).unwrap().is_none());
        assert!(!cluster.status().unwrap().is_synced);
        cluster.refused(&off.settings);
        assert!(cluster.status().is_none(), "what wanted it was refused");
        cluster.resolve(&on).unwrap();
        cluster.taken(&on, None);
        cluster.refused(&on.settings);
        assert!(cluster.status().is_some());
        cluster.taken(&off, None);
        assert!(cluster.status().is_none());
    }
}

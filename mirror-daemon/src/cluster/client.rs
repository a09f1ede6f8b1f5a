//! How the API server is reached: from within the cluster by the pod's service account, from elsewhere by a
//! kubeconfig file. The account's token and certificates are read again as they are renewed.
//!
//! A connection that goes nowhere is noticed by TCP itself, within [`USER_TIMEOUT`], however long a watch is quiet.

mod bounded;

pub use bounded::{MAX_LINE_BYTES, MAX_PAGE_BYTES, TooLarge};

use bounded::Bounded;
use hyper::Uri;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Client;
use kube::client::{Body, ConfigExt};
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tower::ServiceBuilder;

/// Time for a TCP connection to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of an answer, the making of a connection included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a peer that acknowledges nothing is given up.
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Quiet time before TCP asks whether the other end is still there, and between such questions.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most idle connections that are kept.
const MAX_IDLE: usize = 2;
const AGENT: &str = concat!("mirror-daemon/", env!("CARGO_PKG_VERSION"));
/// The variable that names a kubeconfig file, as for kubectl.
const KUBECONFIG_VARIABLE: &str = "KUBECONFIG";
/// The variable that tells a process that it is in a pod.
const IN_CLUSTER_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither in a pod nor given a file.
    #[error(
        "no way to the cluster's API server is known: this is no pod ({IN_CLUSTER_VARIABLE} is not set), and neither \
         --kubeconfig nor {KUBECONFIG_VARIABLE} names a file"
    )]
    NoWay,
    /// In a pod, without what a pod has.
    #[error("the pod's service account can't be used; is automountServiceAccountToken false?")]
    InCluster(#[source] Box<InClusterError>),
    /// The file is unreadable or wrong.
    #[error("kubeconfig {from} can't be used")]
    Kubeconfig {
        /// The file, or the variable that names it.
        from: String,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The file says that the server is reached through a proxy.
    #[error("kubeconfig {from} names a proxy-url, which is not supported here")]
    Proxy {
        /// The file, or the variable that names it.
        from: String,
    },
    /// The file says that credentials come from a program, which the parser may not start.
    #[error(
        "kubeconfig {from} gets its credentials by a program (`exec`), which is not supported here: use a token or a client certificate"
    )]
    Exec {
        /// The file, or the variable that names it.
        from: String,
    },
    /// Certificates or credentials can't be used.
    #[error("the credentials for {server} can't be used")]
    Credentials {
        /// The API server.
        server: String,
        /// What is wrong with them.
        source: Box<kube::Error>,
    },
}

/// The way to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the service account of the pod that this is.
    InCluster,
    /// By a kubeconfig file.
    File(PathBuf),
    /// By the files that `KUBECONFIG` names.
    Variable,
}

impl Access {
    /// The way that there is: the file given on the command line, else `KUBECONFIG`, else the pod's account. A
    /// file in the home directory is not taken unasked: it may lead to another cluster.
    ///
    /// # Errors
    /// There is none.
    pub fn find(kubeconfig: Option<&Path>) -> Result<Self, ClientError> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match kubeconfig {
            Some(file) => Ok(Self::File(file.to_owned())),
            None if is_set(KUBECONFIG_VARIABLE) => Ok(Self::Variable),
            None if is_set(IN_CLUSTER_VARIABLE) => Ok(Self::InCluster),
            None => Err(ClientError::NoWay),
        }
    }

    /// Reads the credentials. Nothing is connected yet.
    ///
    /// # Errors
    /// They can't be read, or lead nowhere.
    pub async fn config(&self) -> Result<Config, ClientError> {
        let options = KubeConfigOptions::default();
        let (from, found) = match self {
            Self::InCluster => {
                return Config::incluster().map_err(|error| ClientError::InCluster(Box::new(error)));
            }
            Self::File(file) => {
                let found = match Kubeconfig::read_from(file) {
                    Ok(found) => Config::from_custom_kubeconfig(found, &options).await,
                    Err(error) => Err(error),
                };
                (file.display().to_string(), found)
            }
            Self::Variable => (format!("of {KUBECONFIG_VARIABLE}"), Config::from_kubeconfig(&options).await),
        };
        match found {
            Ok(Config { proxy_url: Some(_), .. }) => Err(ClientError::Proxy { from }),
            Ok(config) if config.auth_info.exec.is_some() => Err(ClientError::Exec { from }),
            Ok(config) => Ok(config),
            Err(error) => Err(ClientError::Kubeconfig { from, source: Box::new(error) }),
        }
    }

    /// A client, whose clones share its connections. Nothing is connected yet. Needs the Tokio runtime that it
    /// will be used on.
    ///
    /// # Errors
    /// The credentials can't be read or used.
    pub async fn client(&self) -> Result<Client, ClientError> {
        client(self.config().await?)
    }
}

/// A client of `config`.
///
/// # Errors
/// Its certificates or credentials can't be used.
pub fn client(mut config: Config) -> Result<Client, ClientError> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let server = config.cluster_url.to_string();
    let refuse = |error| ClientError::Credentials { server: server.clone(), source: Box::new(error) };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let tls = config.rustls_https_connector_with_connector(tcp).map_err(refuse)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .build(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(refuse)?)
        .layer(config.extra_headers_layer().map_err(refuse)?)
        .service(Bounded::new(http, HEAD_TIMEOUT));
    Ok(Client::new(service, config.default_namespace))
}

/// Whether this asks the API server for a watch.
pub(super) fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        contexts: [{ name: a, context: { cluster: c, user: u } }]\n\
        users: [{ name: u, user: { token: secret } }]\n\
        clusters: [{ name: c, cluster: { server: \"http://127.0.0.1:1\" } }]\n";

    #[tokio::test]
    async fn file_that_is_named_is_used_and_its_faults_are_told_with_its_name() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("kubeconfig");
        let access = Access::find(Some(&file)).unwrap();
        assert_eq!(access, Access::File(file.clone()));
        let missing = access.config().await.unwrap_err().to_string();
        assert!(missing.contains("kubeconfig can't be used"), "{missing}");

        std::fs::write(&file, KUBECONFIG).unwrap();
        assert_eq!(access.config().await.unwrap().cluster_url.to_string(), "http://127.0.0.1:1/");
        assert!(access.client().await.is_ok());

        let proxied = KUBECONFIG.replace("server:", "proxy-url: \"http://127.0.0.1:2\", server:");
        std::fs::write(&file, proxied).unwrap();
        let refused = access.client().await.map(|_| ()).unwrap_err();
        assert!(matches!(refused, ClientError::Proxy { .. }), "{refused:?}");

        let program =
            "exec: { apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never }";
        std::fs::write(&file, KUBECONFIG.replace("token: secret", program)).unwrap();
        let refused = access.client().await.map(|_| ()).unwrap_err();
        assert!(matches!(refused, ClientError::Exec { .. }), "{refused:?}");
    }
}

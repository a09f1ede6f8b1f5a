//! From a reference to the Service and port that it means, as far as it is allowed and there.

use super::finding::Reason;
use super::object::{GATEWAY_API_GROUP, Kind, ObjectRef, is_label};
use super::objects::Objects;
use super::views::{BackendRef, Service, ServicePort, TargetPort};
use std::fmt;

/// Where copies go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Backend {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// It speaks HTTP/2 by prior knowledge, and nothing else.
    pub(super) is_http2: bool,
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Unresolved {
    pub(super) fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self { reason, message: message.to_string() }
    }
}

/// The backend that a `RequestMirror` filter of a route in `from` names.
pub(super) fn of_mirror(objects: &Objects, from: &str, named: &BackendRef) -> Result<Backend, Unresolved> {
    let namespace = named.namespace.as_deref().unwrap_or(from);
    let (group, kind) =
        (named.group.as_deref().unwrap_or_default(), named.kind.as_deref().unwrap_or(Kind::Service.name()));
    let reference = |kind| ObjectRef { kind, namespace: namespace.to_owned(), name: named.name.clone() };
    if (group, kind) == (Kind::Upstream.group(), Kind::Upstream.name()) {
        return of_upstream(objects, from, &reference(Kind::Upstream));
    }
    if (group, kind) != (Kind::Service.group(), Kind::Service.name()) {
        let message = format!("{kind:?} of group {group:?} can't be a shadow; name a Service");
        return Err(Unresolved::new(Reason::InvalidKind, message));
    }
    let target = reference(Kind::Service);
    permit(objects, from, &target)?;
    let port = named.port.ok_or_else(|| {
        Unresolved::new(Reason::InvalidField, "backendRef.port is missing; a Service needs one")
    })?;
    let port = port_number(port, "backendRef.port")?;
    let service = objects.service(&target).ok_or_else(|| {
        let way_out = if objects.is_whole_cluster { "" } else { "; add its manifest" };
        Unresolved::new(Reason::BackendNotFound, format!("{target} is not there{way_out}"))
    })?;
    of_service(objects, &target, service, port)
}

/// The backend of the Upstream that a route in `from` names, directly or by a RouteOption.
pub(super) fn of_upstream(objects: &Objects, from: &str, target: &ObjectRef) -> Result<Backend, Unresolved> {
    permit(objects, from, target)?;
    let upstream = objects
        .upstream(target)
        .ok_or_else(|| Unresolved::new(Reason::BackendNotFound, format!("{target} is not there")))?;
    let spec = &upstream.spec;
    let Some(kube) = &spec.kube else {
        let message = format!("{target} is not of spec.kube; write a [[shadow]] and a [[route]] for it");
        return Err(Unresolved::new(Reason::Unsupported, message));
    };
    if spec.ssl_config.is_some() {
        let message = format!("{target} is spoken to by TLS; write a [[shadow]] and a [[route]] for it");
        return Err(Unresolved::new(Reason::Unsupported, message));
    }
    let port = port_number(kube.service_port, &format!("spec.kube.servicePort of {target}"))?;
    let namespace = kube.service_namespace.as_deref().unwrap_or(&target.namespace);
    for (field, text) in [("serviceName", kube.service_name.as_str()), ("serviceNamespace", namespace)] {
        if !is_label(text) {
            let message = format!("spec.kube.{field} of {target} is {text:?}, which is no name");
            return Err(Unresolved::new(Reason::InvalidField, message));
        }
    }
    let name =
        ObjectRef { kind: Kind::Service, namespace: namespace.to_owned(), name: kube.service_name.clone() };
    let mut backend = match objects.service(&name) {
        Some(service) => of_service(objects, &name, service, port)?,
        None if objects.is_whole_cluster => {
            let message = format!("{name}, which {target} names, is not there");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        }
        // The guide's manifests, for example, leave the Services to others.
        None => Backend { namespace: name.namespace, service: name.name, port, is_http2: false },
    };
    backend.is_http2 |= spec.use_http2;
    Ok(backend)
}

/// Whether an HTTPRoute in `from` may name `target`.
fn permit(objects: &Objects, from: &str, target: &ObjectRef) -> Result<(), Unresolved> {
    if from == target.namespace {
        return Ok(());
    }
    let kind = target.kind;
    let mut grants = objects.grants().filter(|(name, _)| name.namespace == target.namespace);
    let is_permitted = grants.any(|(_, grant)| {
        let is_from = grant.spec.from.iter().any(|own| {
            (own.group.as_str(), own.kind.as_str()) == (GATEWAY_API_GROUP, Kind::HttpRoute.name())
                && own.namespace == from
        });
        is_from
            && grant.spec.to.iter().any(|to| {
                (to.group.as_str(), to.kind.as_str()) == (kind.group(), kind.name())
                    && to.name.as_ref().is_none_or(|name| name.is_empty() || *name == target.name)
            })
    });
    if is_permitted {
        return Ok(());
    }
    let message =
        format!("no ReferenceGrant in {} allows HTTPRoutes of {from} to name {target}", target.namespace);
    Err(Unresolved::new(Reason::RefNotPermitted, message))
}

/// Port `port` of a Service.
fn of_service(
    objects: &Objects,
    name: &ObjectRef,
    service: &Service,
    port: u16,
) -> Result<Backend, Unresolved> {
    let spec = &service.spec;
    let found = spec.ports.iter().find(|own| {
        own.port == i64::from(port) && own.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    });
    let is_external = spec.kind.as_deref() == Some("ExternalName");
    // Whoever writes it may name anything by it, Services of other namespaces too, and no ReferenceGrant would be asked.
    // Who writes files for this daemon may name anything anyway.
    if is_external && objects.is_whole_cluster {
        let message = format!(
            "{name} is of type ExternalName, which may lead anywhere; where that is wanted, write a [[shadow]] and a \
             [[route]] for it"
        );
        return Err(Unresolved::new(Reason::Unsupported, message));
    }
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let port = match found {
        None if !is_external => {
            let message = format!("{name} has no TCP port {port}; it has {}", ports(service));
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        }
        // Its name leads to the pods themselves.
        Some(found) if is_headless => pod_port(name, found, port)?,
        _ => port,
    };
    let is_http2 = found.and_then(|found| found.app_protocol.as_deref()) == Some("kubernetes.io/h2c");
    Ok(Backend { namespace: name.namespace.clone(), service: name.name.clone(), port, is_http2 })
}

fn pod_port(name: &ObjectRef, found: &ServicePort, port: u16) -> Result<u16, Unresolved> {
    match &found.target_port {
        None => Ok(port),
        Some(TargetPort::Number(number)) => port_number(*number, &format!("targetPort of {name}")),
        Some(TargetPort::Name(target)) => {
            let message = format!(
                "{name} is headless and its port {port} leads to pods' port {target:?}, whose number is not known; \
                 write a [[shadow]] and a [[route]] for it"
            );
            Err(Unresolved::new(Reason::Unsupported, message))
        }
    }
}

fn port_number(found: i64, field: &str) -> Result<u16, Unresolved> {
    let number = u16::try_from(found).ok().filter(|number| *number != 0);
    number.ok_or_else(|| {
        Unresolved::new(Reason::InvalidField, format!("{field} is {found}; allowed is 1 to 65535"))
    })
}

fn ports(service: &Service) -> String {
    let all: Vec<String> = service
        .spec
        .ports
        .iter()
        .map(|own| match &own.name {
            Some(name) => format!("{} ({name})", own.port),
            None => own.port.to_string(),
        })
        .collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

//! A shadow's addresses: looked up again as they expire, kept for a while when the resolver fails.

use crate::config::{Endpoint, EndpointHost};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout};

/// Longest time an answer is used without asking again, whatever its TTL says.
const MAX_FRESH: Duration = Duration::from_secs(60);
/// Shortest time an answer is used, whatever its TTL says; also the pause after a failed look-up.
const MIN_FRESH: Duration = Duration::from_secs(1);
/// How long after its expiry an answer is still used when no newer one can be had.
const MAX_STALE: Duration = Duration::from_secs(600);
/// Longest time a "no such name" is believed without asking again.
const MAX_NEGATIVE: Duration = Duration::from_secs(3);
/// Time for a look-up that no request waits for.
const REFRESH_LIMIT: Duration = Duration::from_secs(10);
/// Most addresses of one name that are kept.
const MAX_ADDRESSES: usize = 32;

/// Why a name has no addresses.
#[derive(Debug, Error)]
pub(super) enum ResolveError {
    /// The system's resolver configuration cannot be read.
    #[error("cannot read the resolver configuration: {0}")]
    Configuration(String),
    /// The resolver said no, or nothing.
    #[error("cannot resolve {name}: {why}")]
    LookUp {
        name: String,
        /// In words.
        why: String,
    },
    /// The name exists but has no address.
    #[error("{0} has no address")]
    NoAddress(String),
}

/// What asks for names: `/etc/resolv.conf`, `/etc/hosts` and `localhost` are respected. Shared by all shadows.
#[derive(Clone, Debug)]
pub(super) enum Resolver {
    /// The system's name servers.
    System(Arc<System>),
    /// A test's own names.
    #[cfg(test)]
    Fixed(Arc<Mutex<FixedNames>>),
}

/// The system's resolver: its configuration is read on first use, and again until it could be read.
#[derive(Debug)]
pub(super) struct System {
    opened: OnceLock<TokioResolver>,
    open: fn() -> Result<TokioResolver, String>,
}

/// A test's names: the addresses, or none for a resolver that fails.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct FixedNames {
    pub(super) addresses: Option<Vec<IpAddr>>,
    pub(super) ttl: Duration,
    pub(super) look_ups: usize,
}

impl Resolver {
    pub(super) fn system() -> Self {
        Self::opened_by(open_system_resolver)
    }

    fn opened_by(open: fn() -> Result<TokioResolver, String>) -> Self {
        Self::System(Arc::new(System { opened: OnceLock::new(), open }))
    }

    /// The addresses of `name`, and how long they hold.
    async fn look_up(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let resolver = match self {
            Self::System(system) => system.resolver()?,
            #[cfg(test)]
            Self::Fixed(names) => {
                let mut names = names.lock().unwrap();
                names.look_ups = names.look_ups.saturating_add(1);
                let addresses = names.addresses.clone();
                return Ok((addresses.ok_or(ResolveError::NoAddress(name.to_owned()))?, names.ttl));
            }
        };
        let found = resolver
            .lookup_ip(name)
            .await
            .map_err(|error| ResolveError::LookUp { name: name.to_owned(), why: why(&error) })?;
        let holds_for = found.valid_until().saturating_duration_since(std::time::Instant::now());
        Ok((found.iter().take(MAX_ADDRESSES).collect(), holds_for))
    }
}

/// The resolver's own words show the query as a data structure.
fn why(error: &hickory_resolver::ResolveError) -> String {
    if error.is_nx_domain() {
        return "there is no such name".to_owned();
    }
    if error.is_no_records_found() {
        return "the name servers know no address of it".to_owned();
    }
    match error.proto() {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

impl System {
    fn resolver(&self) -> Result<&TokioResolver, ResolveError> {
        if let Some(resolver) = self.opened.get() {
            return Ok(resolver);
        }
        let fresh = (self.open)().map_err(ResolveError::Configuration)?;
        Ok(self.opened.get_or_init(|| fresh))
    }
}

fn open_system_resolver() -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_max_ttl = Some(MAX_FRESH);
    options.negative_max_ttl = Some(MAX_NEGATIVE);
    Ok(builder.build())
}

/// The addresses of one shadow.
#[derive(Debug)]
pub(super) struct Addresses {
    resolver: Resolver,
    endpoint: Endpoint,
    known: Mutex<Known>,
    /// The origin of `fresh_until_ms`.
    epoch: Instant,
    /// When the answer expires, in ms since `epoch`; `u64::MAX`: never, or nothing is known yet.
    fresh_until_ms: AtomicU64,
    is_refreshing: AtomicBool,
    /// Grows whenever the set of addresses changes.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    usable_until: Option<Instant>,
    /// Where the next connection starts.
    turn: usize,
}

impl Addresses {
    pub(super) fn new(endpoint: &Endpoint, resolver: Resolver) -> Self {
        let addresses = match endpoint.host {
            EndpointHost::Ip(ip) => vec![SocketAddr::new(ip, endpoint.port)],
            EndpointHost::Name(_) => Vec::new(),
        };
        Self {
            resolver,
            endpoint: endpoint.clone(),
            known: Mutex::new(Known { addresses, ..Known::default() }),
            epoch: Instant::now(),
            fresh_until_ms: AtomicU64::new(u64::MAX),
            is_refreshing: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// The addresses to try, in order: each connection starts at another one, and the families alternate.
    ///
    /// # Errors
    /// The name cannot be resolved, and no older answer is young enough.
    pub(super) async fn candidates(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let is_unknown = self.lock().addresses.is_empty();
        if is_unknown || self.is_expired(Instant::now()) {
            self.look_up().await?;
        }
        let mut known = self.lock();
        let start = known.turn.checked_rem(known.addresses.len()).unwrap_or(0);
        known.turn = start.wrapping_add(1);
        let mut rotated = known.addresses.clone();
        rotated.rotate_left(start);
        Ok(alternate_families(rotated))
    }

    /// True for the one caller who shall call [`refresh`](Self::refresh): the answer has expired.
    pub(super) fn wants_refresh(&self, now: Instant) -> bool {
        self.is_expired(now) && !self.is_refreshing.swap(true, Ordering::Relaxed)
    }

    /// Looks the name up again; true when its addresses have changed.
    pub(super) async fn refresh(&self) -> bool {
        let before = self.generation();
        let found = timeout(REFRESH_LIMIT, self.look_up()).await;
        if found.is_err() {
            self.hold(MIN_FRESH);
        }
        self.is_refreshing.store(false, Ordering::Relaxed);
        before != self.generation()
    }

    /// A number that grows whenever the set of addresses changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether the name still has this address.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.lock().addresses.contains(&address)
    }

    async fn look_up(&self) -> Result<(), ResolveError> {
        let EndpointHost::Name(name) = &self.endpoint.host else { return Ok(()) };
        let found = self.resolver.look_up(name).await;
        let now = Instant::now();
        let mut known = self.lock();
        match found {
            Ok((ips, holds_for)) if !ips.is_empty() => {
                let port = self.endpoint.port;
                let mut addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                // Name servers rotate their answers: sorted, the same set is the same list.
                addresses.sort_unstable();
                addresses.dedup();
                if known.addresses != addresses {
                    known.addresses = addresses;
                    self.generation.fetch_add(1, Ordering::Relaxed);
                }
                let fresh_for = holds_for.clamp(MIN_FRESH, MAX_FRESH);
                self.hold(fresh_for);
                known.usable_until = now.checked_add(fresh_for.saturating_add(MAX_STALE));
                Ok(())
            }
            failed => {
                self.hold(MIN_FRESH);
                if known.usable_until.is_some_and(|until| now < until) {
                    return Ok(());
                }
                known.addresses.clear();
                Err(failed.err().unwrap_or_else(|| ResolveError::NoAddress(name.clone())))
            }
        }
    }

    /// The present answer holds for so long from now.
    fn hold(&self, fresh_for: Duration) {
        let until = self.epoch.elapsed().saturating_add(fresh_for);
        self.fresh_until_ms.store(whole_ms(until), Ordering::Relaxed);
    }

    fn is_expired(&self, now: Instant) -> bool {
        let now_ms = whole_ms(now.saturating_duration_since(self.epoch));
        now_ms >= self.fresh_until_ms.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Alternates IPv6 and IPv4 (RFC 8305, 4), beginning with the family of the first.
fn alternate_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6_first);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &Arc<Mutex<FixedNames>>) -> Addresses {
        let endpoint = Endpoint { host: EndpointHost::Name("shadow.test".to_owned()), port: 80 };
        Addresses::new(&endpoint, Resolver::Fixed(Arc::clone(names)))
    }

    fn ips(last: &[u8]) -> Option<Vec<IpAddr>> {
        Some(last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect())
    }

    #[test]
    fn failed_look_up_is_told_without_the_query() {
        use hickory_resolver::proto::op::{Query, ResponseCode};
        use hickory_resolver::proto::{ProtoError, ProtoErrorKind};
        for (response_code, words) in [
            (ResponseCode::NXDomain, "there is no such name"),
            (ResponseCode::NoError, "the name servers know no address of it"),
            (ResponseCode::ServFail, "the name servers know no address of it"),
        ] {
            let kind = ProtoErrorKind::NoRecordsFound {
                query: Box::new(Query::default()),
                soa: None,
                ns: None,
                negative_ttl: None,
                response_code,
                trusted: false,
                authorities: None,
            };
            assert_eq!(why(&ProtoError::from(kind).into()), words);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answer_is_asked_for_again_when_its_ttl_is_over_and_kept_stale_when_that_fails() {
        let ttl = Duration::from_secs(5);
        let names = Arc::new(Mutex::new(FixedNames { addresses: ips(&[1]), ttl, look_ups: 0 }));
        let addresses = named(&names);
        assert_eq!(addresses.candidates().await.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        addresses.candidates().await.unwrap();
        assert_eq!(names.lock().unwrap().look_ups, 1);
        tokio::time::advance(ttl).await;
        names.lock().unwrap().addresses = None;
        assert_eq!(addresses.candidates().await.unwrap().len(), 1, "a stale answer is better than none");
        tokio::time::advance(MIN_FRESH).await;
        names.lock().unwrap().addresses = ips(&[2]);
        let before = addresses.generation();
        assert_eq!(addresses.candidates().await.unwrap(), ["127.0.0.2:80".parse().unwrap()]);
        assert_ne!(addresses.generation(), before);
        tokio::time::advance(ttl + MAX_STALE).await;
        names.lock().unwrap().addresses = None;
        assert!(addresses.candidates().await.is_err(), "too old");
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_forgotten_at_once() {
        let names = Arc::new(Mutex::new(FixedNames::default()));
        let addresses = named(&names);
        assert!(addresses.candidates().await.is_err());
        names.lock().unwrap().addresses = ips(&[1]);
        assert!(addresses.candidates().await.is_ok());
    }

    #[tokio::test]
    async fn connections_start_at_each_address_in_turn_and_families_alternate() {
        let addresses = ips(&[1, 2]);
        let ttl = Duration::from_secs(5);
        let names = Arc::new(Mutex::new(FixedNames { addresses, ttl, look_ups: 0 }));
        let addresses = named(&names);
        let first = addresses.candidates().await.unwrap();
        let second = addresses.candidates().await.unwrap();
        assert_eq!(first, second.into_iter().rev().collect::<Vec<_>>());
        let mixed: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"].map(|a| a.parse().unwrap()).into();
        let is_v6: Vec<_> = alternate_families(mixed).iter().map(SocketAddr::is_ipv6).collect();
        assert_eq!(is_v6, [true, false, true, false, false]);
    }

    #[tokio::test]
    async fn unreadable_configuration_is_read_again() {
        static IS_READABLE: AtomicBool = AtomicBool::new(false);
        let resolver = Resolver::opened_by(|| match IS_READABLE.load(Ordering::Relaxed) {
            true => open_system_resolver(),
            false => Err("no such file".to_owned()),
        });
        let refused = resolver.look_up("localhost").await;
        assert!(matches!(refused, Err(ResolveError::Configuration(_))), "{refused:?}");
        IS_READABLE.store(true, Ordering::Relaxed);
        assert!(resolver.look_up("localhost").await.is_ok());
    }

    #[tokio::test]
    async fn localhost_resolves_without_a_name_server() {
        let endpoint = Endpoint { host: EndpointHost::Name("localhost".to_owned()), port: 80 };
        let found = Addresses::new(&endpoint, Resolver::system()).candidates().await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}

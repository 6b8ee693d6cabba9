//! A client of one definition: its identity, its trust, its limits and its connections. It shares none of them.

mod attempt;
mod body;
mod breaker;
mod connection;
mod deadline;
mod definition;
mod dial;
mod http2;
mod io;
mod pool;
mod tunnel;

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use jackfield_domain::TenantId;
use jackfield_domain::value::url::HttpUrl;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use self::attempt::Attempt;
use self::breaker::Breaker;
use self::connection::Failure;
use self::deadline::within;
use self::pool::Pool;
use crate::egress::{Refusal, Target};
use crate::error::{CallError, Fault};
use crate::observe::Observer;
use crate::tls::{Handshakes, TlsFault};

pub use self::connection::Response;
pub(crate) use self::connection::{Connection, Responding};
pub use self::deadline::Deadline;
pub use self::definition::{Definition, DefinitionError, Limits, Proxy, Request, basic, header_of, secret_value};
pub use self::dial::Network;
pub(crate) use self::dial::{Connected, dial, handshake, peer, tunnelled};
pub use self::pool::Places;
pub use http::StatusCode;
pub use http::header::{AUTHORIZATION, HeaderMap};

/// A client. A call lasts as long as its future: who drops the future closes the connection of the call.
pub struct Client {
    network: Arc<Network>,
    definition: Definition,
    /// For the origins that get the identity of the definition.
    known: Handshakes,
    /// For all others, from the first call to one of them on.
    anonymous: OnceLock<Handshakes>,
    /// The URL of the first call that the policy permitted. Almost all calls have the same one.
    checked: OnceLock<(HttpUrl, Target)>,
    pool: Pool,
    places: Semaphore,
    /// Tells calls that can be done without that another one lacks a place.
    wanted: Notify,
    /// The calls that wait for a place.
    waiting: AtomicUsize,
    /// One for each kind of calls.
    breakers: [Breaker; 7],
    last_use: Mutex<Instant>,
    observer: Observer,
}

/// The purpose of a call. Endpoints with different purposes may be different systems, of which one can be away alone.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// The calls that the connector is there for, such as log-ins.
    Main,
    /// Exchanges of grants for tokens.
    Exchange,
    /// Revocations.
    Revocation,
    /// Documents of issuers.
    Document,
    /// Codes for devices.
    Device,
    /// Profiles of users.
    Profile,
    /// Profiles of users that can be done without. Such a call waits for no place, and gives up its own to a call that waits.
    OptionalProfile,
}

/// A place for one call, which is free again when this is dropped.
pub struct Reserved<'a>(SemaphorePermit<'a>);

/// A call that waits for a place.
struct Waiting<'a>(&'a AtomicUsize);

/// The protocol of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The longest time that a call which can be done without goes on after another one has begun to wait for a place. An endpoint that answers at
/// once needs no more.
const GRACE: Duration = Duration::from_millis(250);

// === impl Purpose ===

impl Purpose {
    /// Returns true if a call may go over a connection that was kept, and leave its own to the next one. The server, or something on the
    /// way, may have closed one that was idle, and then it is unknown what became of the request. Most calls can be made again, but an
    /// exchange may have spent its grant.
    fn keeps_connections(self) -> bool {
        match self {
            Purpose::Main
            | Purpose::Revocation
            | Purpose::Document
            | Purpose::Device
            | Purpose::Profile
            | Purpose::OptionalProfile => true,
            Purpose::Exchange => false,
        }
    }

    /// Returns true if a call can be done without, so that it must not delay any other.
    fn is_optional(self) -> bool {
        matches!(self, Purpose::OptionalProfile)
    }
}

// === impl Client ===

impl Client {
    /// Makes a client. All clients share the network, and the places for connections that are kept.
    ///
    /// # Errors
    /// A part of the definition cannot be used.
    pub fn new(network: Arc<Network>, definition: Definition, kept: Arc<Places>) -> Result<Self, DefinitionError> {
        definition.check()?;
        let tls = |error: rustls::Error| DefinitionError::Tls(error.to_string());
        let known = Handshakes::new(definition.identity.as_ref(), &definition.trust).map_err(tls)?;
        Ok(Client {
            pool: Pool::new(definition.limits.idle, kept),
            places: Semaphore::new(definition.limits.concurrency),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
            breakers: std::array::from_fn(|_| Breaker::new(&definition.limits)),
            last_use: Mutex::new(Instant::now()),
            observer: network.metrics.observer(None),
            network,
            definition,
            known,
            anonymous: OnceLock::new(),
            checked: OnceLock::new(),
        })
    }

    /// Has spans and metrics name the connector of the client.
    pub(crate) fn of_connector(self, connector: (TenantId, Uuid)) -> Self {
        Client { observer: self.network.metrics.observer(Some(connector)), ..self }
    }

    /// Has spans name the credential source of the client.
    pub(crate) fn of_source(self, source: Uuid) -> Self {
        Client { observer: self.network.metrics.observer_of_source(source), ..self }
    }

    /// Makes a call. Redirects are responses like others; they are not followed.
    ///
    /// # Errors
    /// There is no complete response within the limits.
    pub async fn send(&self, request: Request) -> Result<Response, CallError> {
        self.send_as(Purpose::Main, request).await
    }

    /// Makes a call with another purpose. If its endpoint is away, only calls for the same purpose are held back.
    ///
    /// # Errors
    /// There is no complete response within the limits.
    pub async fn send_as(&self, purpose: Purpose, request: Request) -> Result<Response, CallError> {
        self.send_by((purpose, Protocol::Http1), request, None).await
    }

    /// Waits for a place for a call whose time begins when it has one. The connect timeout is the longest wait.
    ///
    /// # Errors
    /// There is no place in time.
    pub async fn reserve(&self, deadline: Option<Deadline>) -> Result<Reserved<'_>, CallError> {
        self.touch();
        let place = self.place(deadline).await;
        place.map(Reserved).map_err(|fault| CallError { fault, sent: false })
    }

    /// Makes a call that has its place. Over HTTP/2, it has a connection of its own, and the trailers of the response are among its headers.
    ///
    /// # Errors
    /// There is no complete response within the limits.
    pub(crate) async fn send_in(
        &self,
        place: Reserved<'_>,
        protocol: Protocol,
        request: Request,
    ) -> Result<Response, CallError> {
        self.send_by((Purpose::Main, protocol), request, Some(place)).await
    }

    async fn send_by(
        &self,
        kind: (Purpose, Protocol),
        request: Request,
        place: Option<Reserved<'_>>,
    ) -> Result<Response, CallError> {
        self.touch();
        let target = self.target(&request.url);
        let observed = self.observer.begin(&request.method, target.as_deref().ok());
        let outcome = match &target {
            Ok(target) => self.admit(kind, target, request, place).instrument(observed.span()).await,
            Err(refusal) => Err(CallError { fault: refusal.clone().into(), sent: false }),
        };
        observed.end(outcome.as_ref().map(|response| response.status).map_err(|error| &error.fault));
        outcome
    }

    /// Makes a call if its breaker admits it, within the time that it may take.
    async fn admit(
        &self,
        (purpose, protocol): (Purpose, Protocol),
        target: &Target,
        request: Request,
        place: Option<Reserved<'_>>,
    ) -> Result<Response, CallError> {
        let unsent = |fault| CallError { fault, sent: false };
        let timeouts = self.definition.timeouts;
        let total = Deadline::Server(Instant::now() + timeouts.total);
        let earlier = request.deadline.filter(|deadline| deadline.at() < total.at());
        let deadline = earlier.unwrap_or(total);
        let (_place, wanted) = match (place, purpose.is_optional()) {
            (Some(Reserved(place)), _) => (place, None),
            (None, false) => (self.place(request.deadline).await.map_err(unsent)?, None),
            (None, true) => {
                // It hears of calls that begin to wait from here on.
                let wanted = self.wanted.notified();
                (self.places.try_acquire().map_err(|_| unsent(Fault::Busy))?, Some(wanted))
            }
        };
        let open = |retry_after| unsent(Fault::CircuitOpen { retry_after });
        let admission = self.breakers[purpose as usize].admit().map_err(open)?;
        let attempt = Attempt::new(admission, timeouts, deadline);
        let start = Instant::now();
        let outcome = {
            // Pinned here, so that it is not moved, and wiped, once more.
            let call = pin!(async {
                match protocol {
                    Protocol::Http1 => self.call(purpose, target, request, &attempt).await,
                    // On the heap, because most calls do without.
                    Protocol::Http2 => Box::pin(self.call_http2(target, request, &attempt)).await,
                }
            });
            let in_time = within(deadline.at(), call, || attempt.is_sent());
            match wanted {
                None => in_time.await,
                Some(wanted) => Box::pin(self.unless_wanted(wanted, in_time)).await,
            }
        };
        let outcome = outcome.unwrap_or_else(|| Err(deadline.fault()));
        let sent = attempt.is_sent();
        match &outcome {
            // The gateway in front of the system has answered, or the system itself, that it cannot. An error of another
            // kind may be about this one request.
            Ok(response) => attempt.settle(matches!(response.status.as_u16(), 502..=504)),
            // The caller left, or the call gave way to another one.
            Err(Fault::CallerTimeout | Fault::Busy) => drop(attempt),
            // Less time than the total timeout, and the wait in our own queue, say nothing about the system.
            Err(Fault::TotalTimeout) if earlier.is_some() || start.elapsed() < timeouts.total / 2 => drop(attempt),
            Err(fault) if fault.is_outage() => attempt.settle(true),
            Err(_) => attempt.dismiss(),
        }
        outcome.map_err(|fault| CallError { fault, sent })
    }

    /// The target of a URL, if the policy permits it.
    fn target(&self, url: &HttpUrl) -> Result<Cow<'_, Target>, Refusal> {
        if let Some((known, target)) = self.checked.get()
            && known == url
        {
            return Ok(Cow::Borrowed(target));
        }
        let target = self.network.policy.check_url(url)?;
        // Of two first calls, one is kept.
        let _ = self.checked.set((url.clone(), target.clone()));
        Ok(Cow::Owned(target))
    }

    /// Closes idle connections whose time is over.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    /// The time since the last call began.
    pub(crate) fn unused(&self) -> Duration {
        self.last_use.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn touch(&self) {
        *self.last_use.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The number of idle connections.
    pub fn idle(&self) -> usize {
        self.pool.len()
    }

    /// Waits for a place, for the connect timeout at most. Calls that can be done without give theirs up.
    pub(crate) async fn place(&self, deadline: Option<Deadline>) -> Result<SemaphorePermit<'_>, Fault> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let end = Instant::now() + self.definition.timeouts.connect;
        let earlier = deadline.filter(|deadline| deadline.at() < end);
        let _waiting = Waiting::begin(&self.waiting);
        // It queues first: from then on no call that can be done without takes a place before it.
        let mut place = pin!(self.places.acquire());
        let queued = poll_fn(|cx| Poll::Ready(place.as_mut().poll(cx))).await;
        let acquired = match queued {
            Poll::Ready(place) => Ok(place),
            Poll::Pending => {
                self.wanted.notify_waiters();
                timeout_at(earlier.map_or(end, Deadline::at), place).await
            }
        };
        match acquired {
            Ok(place) => place.map_err(|_| Fault::Busy),
            Err(_) => match earlier {
                Some(Deadline::Caller(_)) => Err(Fault::CallerTimeout),
                // It says nothing about the system.
                Some(Deadline::Server(_)) | None => Err(Fault::Busy),
            },
        }
    }

    /// The outcome of a call that can be done without. `Busy` if others lack a place for longer than a moment.
    async fn unless_wanted<'a, T>(
        &'a self,
        first: Notified<'a>,
        call: impl Future<Output = Option<Result<T, Fault>>>,
    ) -> Option<Result<T, Fault>> {
        let grace = GRACE.min(self.definition.timeouts.connect / 2);
        let is_wanted = async {
            let mut wanted = first;
            loop {
                wanted.await;
                sleep(grace).await;
                // Calls that begin to wait after the look are heard of.
                wanted = self.wanted.notified();
                if self.waiting.load(Ordering::Relaxed) > 0 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = call => outcome,
            () = is_wanted => Some(Err(Fault::Busy)),
        }
    }

    async fn call(
        &self,
        purpose: Purpose,
        target: &Target,
        request: Request,
        attempt: &Attempt<'_>,
    ) -> Result<Response, Fault> {
        let kept = || if purpose.keeps_connections() { self.pool.take(target) } else { None };
        let (response, peer, connection) = self.call_over(kept, target, request, attempt).await?;
        if purpose.keeps_connections() {
            self.pool.put(peer, connection);
        }
        Ok(response)
    }

    /// Makes a call over a connection that was kept. If there is none, or none that lasts until the request is written, over a new one.
    /// Returns the connection with the response, and the target that it was made for.
    async fn call_over(
        &self,
        mut kept: impl FnMut() -> Option<(Target, Connection)>,
        target: &Target,
        request: Request,
        attempt: &Attempt<'_>,
    ) -> Result<(Response, Target, Connection), Fault> {
        let Definition { timeouts, limits, .. } = &self.definition;
        let mut message = self.definition.message(target, request);
        loop {
            let pooled = kept();
            let is_fresh = pooled.is_none();
            let (peer, connection) = match pooled {
                Some(pooled) => pooled,
                None => {
                    attempt.connects();
                    // On the heap, because most calls do without: it would make the future of every call many times as large.
                    (target.clone(), Box::pin(self.connect(target)).await?)
                }
            };
            attempt.sends(connection.traffic())?;
            match connection.exchange(message, timeouts.read, limits).await {
                Ok((response, connection)) => {
                    if let Some(fault) = self.definition.refusal(target, response.status, &response.body) {
                        return Err(fault);
                    }
                    return Ok((response, peer, connection));
                }
                // The server closed while the connection was idle, and nothing was written to it.
                Err(Failure { unsent: Some(unsent), .. }) if !is_fresh => {
                    attempt.set_sent(false);
                    message = unsent;
                }
                Err(failure) => {
                    attempt.set_sent(failure.sent);
                    return Err(failure.fault);
                }
            }
        }
    }

    /// The parameters of handshakes with a target.
    fn tls(&self, target: &Target) -> Result<&Handshakes, Fault> {
        if self.definition.identity.is_none() || self.definition.identity(target).is_some() {
            return Ok(&self.known);
        }
        if let Some(anonymous) = self.anonymous.get() {
            return Ok(anonymous);
        }
        let anonymous = Handshakes::new(None, &self.definition.trust).map_err(|_| TlsFault::Other)?;
        Ok(self.anonymous.get_or_init(|| anonymous))
    }

    async fn connect(&self, target: &Target) -> Result<Connection, Fault> {
        let Definition { timeouts, limits, proxy, .. } = &self.definition;
        let deadline = Instant::now() + timeouts.connect;
        let tls = self.tls(target)?;
        let config = tls.config().map_err(|_| TlsFault::Other)?;
        let opening = tracing::info_span!("open a connection");
        let connecting = self.network.connect(target, proxy.as_ref(), &config, deadline).instrument(opening);
        let mut connected = connecting.await?;
        connected.rest_on(self.definition.identity(target));
        tls.note(connected.not_after);
        Connection::new(connected, limits).await
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("origins", &self.definition.origins).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The steps from the request to the body of its response.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jackfield_domain::probe::{ProbeReason, ProbeStep};

use super::connect::Call;
use super::license;
use super::plan::{Plan, Subject};
use super::report::{Facts, Report};
use super::response::{Head, authentication, body, client_certificate, client_certificate_not_requested, status};
use crate::client::{AUTHORIZATION, Connected, Connection, Definition, Request, Responding};
use crate::egress::Target;
use crate::error::Fault;
use crate::oidc::{DocumentFault, Published};
use crate::tls::TlsFault;

/// The body of a response. It is read when a verdict depends on it.
enum Body {
    Unread(Box<Responding>),
    Read(Result<Bytes, Fault>),
}

// === impl Call ===

impl Call<'_> {
    /// Sends the request and judges the response. A fault was reported before it is returned.
    pub(super) async fn exchange(
        &self,
        connected: Connected,
        request: Request,
        subject: &Subject,
        report: &mut Report,
    ) -> Result<StatusCode, Fault> {
        let (auth, is_https) = (connected.auth, self.target.is_https());
        let is_asked = auth.is_asked();
        if is_https && !is_asked {
            client_certificate_not_requested(report, self.definition.identity(self.target).is_some());
        }
        let has_credentials = self.has_credentials();
        let mut subject = subject;
        let responding = match self.begin(connected, request).await {
            Ok(responding) => responding,
            Err(fault) => return Err(no_response(report, is_asked, fault)),
        };
        let (mut head, mut answer) = received(responding);
        if let Subject::Document { or: Some(plan), .. } = subject {
            let is_none;
            (answer, is_none) = self.lacks_document(head.status, answer).await;
            if is_none && let Some(found) = self.second(plan).await {
                ((head, answer), subject) = (received(found), &plan.subject);
            }
        }
        // A server may refuse the certificate in a page, with this status.
        if is_asked && head.status == StatusCode::BAD_REQUEST {
            answer = Body::Read(self.whole(answer).await);
        }
        if head.status == StatusCode::BAD_REQUEST
            && let Body::Read(page) = &answer
            && let Some(fault) = self.refusal(head.status, page)
        {
            return Err(report.fault(ProbeStep::ClientCertificate, fault, head.facts()));
        }
        if is_asked {
            client_certificate(report, auth);
        }
        if let Subject::Token(check) = subject {
            let first = self.whole(answer).await;
            return self.judge_token(check, head, first, report).await;
        }
        if let Subject::License { .. } = subject {
            let read = self.whole(answer).await.map(|body| head.license = Some(license::read(&head, body)));
            answer = Body::Read(read.map(|()| Bytes::new()));
        }
        if !(authentication(report, subject, has_credentials, &head) && status(report, subject, &head)) {
            return Ok(head.status);
        }
        if !subject.has_body() {
            report.skipped(ProbeStep::Body, ProbeReason::BodyNotExpected, "The body of this response does not matter.");
            return Ok(head.status);
        }
        let read = self.whole(answer).await;
        let read = read.map_err(|fault| report.fault(ProbeStep::Body, after_head(fault), Facts::default()))?;
        let status = head.status;
        body(report, subject, head, read, self.now);
        Ok(status)
    }

    /// Sends a request, and reads the head of the response.
    pub(super) async fn begin(&self, connected: Connected, request: Request) -> Result<Responding, Fault> {
        let Definition { timeouts, limits, .. } = self.definition;
        let message = self.definition.message(self.target, request);
        let begun = async {
            let connection = Connection::new(connected, limits).await?;
            connection.begin(message, timeouts.read).await.map_err(|failure| failure.fault)
        };
        self.deadline.limit(begun).await
    }

    /// Returns what is left of a response, and whether it has no document, so that another one counts. Its body is read if its status does
    /// not say so.
    async fn lacks_document(&self, status: StatusCode, answer: Body) -> (Body, bool) {
        if status != StatusCode::OK {
            return (answer, DocumentFault::Status(status).is_no_document());
        }
        let read = self.whole(answer).await;
        let found = read.as_ref().ok().map(|body| Published::of(status, body));
        let is_none = matches!(found, Some(Err(fault)) if fault.is_no_document());
        (Body::Read(read), is_none)
    }

    /// The response to another request to the same origin, over a connection of its own, if it has what is asked for.
    async fn second(&self, plan: &Plan) -> Option<Responding> {
        let target = Target::parse(&plan.url).ok()?;
        let call = Call { url: &plan.url, target: &target, ..*self };
        let connected = call.open(&mut Report::unheard()).await.ok()?;
        let responding = call.begin(connected, plan.request(None).ok()?).await.ok()?;
        (responding.status() == StatusCode::OK).then_some(responding)
    }

    async fn whole(&self, answer: Body) -> Result<Bytes, Fault> {
        match answer {
            Body::Read(read) => read,
            Body::Unread(responding) => self.read(*responding).await,
        }
    }

    pub(super) async fn read(&self, responding: Responding) -> Result<Bytes, Fault> {
        let Definition { timeouts, limits, .. } = self.definition;
        let reading = async {
            let finished = responding.finish(timeouts.read, limits).await;
            finished.map(|(response, _)| response.body).map_err(|failure| failure.fault)
        };
        self.deadline.limit(reading).await
    }

    /// The fault if the server refuses the certificate in a page, or by an alert in place of one.
    fn refusal(&self, status: StatusCode, page: &Result<Bytes, Fault>) -> Option<Fault> {
        match page {
            Ok(page) => self.definition.refusal(self.target, status, page),
            Err(fault @ Fault::Tls(TlsFault::ClientCertificate(_))) => Some(fault.clone()),
            Err(_) => None,
        }
    }

    /// Returns true if the request has secret headers, or those of HTTP authentication.
    fn has_credentials(&self) -> bool {
        let headers = &self.definition.headers;
        let is_secret = headers.values().any(HeaderValue::is_sensitive) || headers.contains_key(AUTHORIZATION);
        is_secret && self.definition.knows(self.target)
    }
}

/// The head of a response, and its body.
fn received(responding: Responding) -> (Head, Body) {
    let head = Head { status: responding.status(), headers: responding.headers().clone(), license: None };
    (head, Body::Unread(Box::new(responding)))
}

/// The fault of a body. A server that sent the head has accepted the certificate of the client, so an alert after it is about something else.
pub(super) fn after_head(fault: Fault) -> Fault {
    match fault {
        Fault::Tls(TlsFault::ClientCertificate(_)) => Fault::Tls(TlsFault::Ended),
        fault => fault,
    }
}

/// Reports that there is no response: in TLS 1.3, servers refuse the certificate of the client so.
fn no_response(report: &mut Report, is_asked: bool, fault: Fault) -> Fault {
    if is_asked {
        if matches!(fault, Fault::Tls(TlsFault::ClientCertificate(_))) {
            return report.fault(ProbeStep::ClientCertificate, fault, Facts::default());
        }
        let message = "There is no response that would show whether the server accepts the certificate.";
        report.skipped(ProbeStep::ClientCertificate, ProbeReason::Undecided, message);
    }
    report.skipped(ProbeStep::Authentication, ProbeReason::Undecided, "There is no response.");
    report.fault(ProbeStep::Status, fault, Facts::default())
}

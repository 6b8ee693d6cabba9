//! The test of a token endpoint: a code is sent that the endpoint did not issue. Refusing the code, it accepts the client (RFC 6749 5.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Verdict, ProbeStep as Step};
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use tokio::time::Instant;

use super::connect::Call;
use super::exchange::after_head;
use super::report::{Facts, Report};
use super::response::Head;
use crate::client::{Client, HeaderMap, Request, Response};
use crate::error::Fault;
use crate::oauth::{ClientAuthentication, Grant, TokenEndpoint, TokenFailure, TokenFault, TokenResponse, read_tokens};

/// A token endpoint, and the client that is registered there.
pub struct TokenCheck {
    pub client: Arc<Client>,
    pub url: HttpUrl,
    /// One for each client secret, in the order in which a verdict counts them; one for a public client. Not empty.
    pub authentications: Vec<ClientAuthentication>,
    pub content_type: TokenContentType,
    /// The code that is sent: one of those that the client is to use.
    pub sends: ProbedCode,
    /// Parameters that are sent beside those of the grant.
    pub parameters: BTreeMap<String, String>,
    pub redirect_uri: RedirectUri,
    /// A code that no endpoint has issued, and a verifier for it.
    pub code: Secret,
    pub code_verifier: Secret,
}

/// A code that no endpoint has issued, by the way in which the users of a connection authorise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbedCode {
    /// An authorisation code: in a browser.
    Authorization,
    /// A device code: at another device alone (RFC 8628). The client may be permitted to use nothing else.
    Device,
    /// An authorisation code of which the client has no use: there are no users.
    Unused,
}

/// The answer to a code that was not issued.
type Answer = Result<TokenResponse, TokenFault>;

/// The meaning of an answer for the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    Accepted,
    Refused,
    /// A token endpoint has this status for clients alone (RFC 6749 5.2), but does not say so. Something in front of it may have it for all.
    Unsaid,
    Unknown,
}

// === impl TokenCheck ===

impl TokenCheck {
    /// The request of a client that says in one of its ways who it is.
    pub(super) fn request(&self, index: usize, deadline: Option<Instant>) -> Result<Request, TokenFault> {
        let TokenCheck { client, url, authentications, content_type, parameters, .. } = self;
        let TokenCheck { sends, redirect_uri, code, code_verifier, .. } = self;
        let none = TokenFault::Request("the client has no such authentication");
        let authentication = authentications.get(index).ok_or(none)?;
        let endpoint = TokenEndpoint { client, url, authentication, content_type: *content_type, parameters };
        let grant = match sends {
            ProbedCode::Device => Grant::DeviceCode { device_code: code },
            ProbedCode::Authorization | ProbedCode::Unused => {
                Grant::AuthorizationCode { code, redirect_uri, code_verifier }
            }
        };
        endpoint.message(&grant, deadline)
    }
}

// === impl Call ===

impl Call<'_> {
    /// Judges the response of a token endpoint, and tries the other client secrets.
    pub(super) async fn judge_token(
        &self,
        check: &TokenCheck,
        head: Head,
        body: Result<Bytes, Fault>,
        report: &mut Report,
    ) -> Result<StatusCode, Fault> {
        let status = head.status;
        let body = body.map_err(|fault| {
            for step in [Step::Authentication, Step::Status] {
                report.skipped(step, Reason::Undecided, "There is no complete response.");
            }
            report.fault(Step::Body, after_head(fault), Facts::default())
        })?;
        let mut answers = vec![read(status, head.headers.clone(), body)];
        // An endpoint that says nothing about the client is not asked again.
        while answers.last().is_some_and(|answer| acceptance(answer) != Acceptance::Unknown)
            && answers.len() < check.authentications.len()
        {
            let Some(answer) = self.ask(check, answers.len()).await else { break };
            answers.push(answer);
        }
        let secrets = check.authentications.len();
        if !authentication(report, &answers, secrets, head.facts()) {
            return Ok(status);
        }
        let accepted = answers.iter().find(|answer| acceptance(answer) == Acceptance::Accepted);
        if let Some(answer) = accepted.or(answers.first())
            && refusal(report, answer, status, check.sends)
        {
            report.passed(Step::Body, "The body has an error code of OAuth.", Facts::default());
        }
        Ok(status)
    }

    /// Sends the code again, with another client secret and over another connection. `None`: there is no response.
    async fn ask(&self, check: &TokenCheck, index: usize) -> Option<Answer> {
        let request = check.request(index, None).ok()?;
        let connected = self.open(&mut Report::unheard()).await.ok()?;
        let responding = self.begin(connected, request).await.ok()?;
        let (status, headers) = (responding.status(), responding.headers().clone());
        Some(read(status, headers, self.read(responding).await.ok()?))
    }
}

fn read(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    read_tokens(&Response { status, headers, body })
}

fn acceptance(answer: &Answer) -> Acceptance {
    match answer {
        Err(fault) if fault.refuses_client() => Acceptance::Refused,
        // An endpoint that says what this client may not do has accepted it.
        Err(fault @ TokenFault::Refused { status, code, .. })
            if !status.is_server_error()
                && (fault.class() == TokenFailure::Grant || code.as_str() == "unauthorized_client") =>
        {
            Acceptance::Accepted
        }
        Err(TokenFault::Status { status, .. }) if *status == StatusCode::UNAUTHORIZED => Acceptance::Unsaid,
        // Slack
        Err(TokenFault::Refused { code, .. }) if code.as_str() == "invalid_client_id" => Acceptance::Refused,
        _ => Acceptance::Unknown,
    }
}

/// Judges whether the endpoint accepts the client. Returns false if it does not.
fn authentication(report: &mut Report, answers: &[Answer], secrets: usize, mut facts: Facts) -> bool {
    let mut all: Vec<Acceptance> = answers.iter().map(acceptance).collect();
    let is_unsaid = all.contains(&Acceptance::Unsaid);
    // Nothing refuses all if another secret is accepted.
    if all.contains(&Acceptance::Accepted) {
        all.iter_mut().filter(|it| **it == Acceptance::Unsaid).for_each(|it| *it = Acceptance::Refused);
    }
    if let Some(Err(TokenFault::Refused { code, .. })) = answers.first()
        && code.is_known()
    {
        facts.add("error_code", code.as_str());
    }
    for index in (0..secrets).filter(|_| secrets > 1) {
        let value = match all.get(index) {
            Some(Acceptance::Accepted) => "accepted",
            Some(Acceptance::Refused) => "refused",
            Some(Acceptance::Unsaid | Acceptance::Unknown) | None => "unknown",
        };
        facts.add(format!("client_secret.{}", index + 1), value);
    }
    let refused = (1..).zip(&all).filter(|(_, acceptance)| **acceptance == Acceptance::Refused);
    let refused: Vec<String> = refused.map(|(number, _): (usize, _)| number.to_string()).collect();
    let (result, reason, message) = if all.contains(&Acceptance::Accepted) {
        match refused.is_empty() {
            true => {
                let message = "The token endpoint accepts the client: it refused only the code.".to_owned();
                (Verdict::Ok, Reason::ClientAccepted, message)
            }
            false => {
                let refused = refused.join(", ");
                let message = format!(
                    "The token endpoint accepts the client, but not with each secret. Of the {secrets} client secrets \
                     it refuses number {refused}."
                );
                (Verdict::Warning, Reason::ClientSecretRefused, message)
            }
        }
    } else if refused.is_empty() {
        let message = match is_unsaid {
            true => {
                "The status 401 comes without an error code of OAuth. Either the token endpoint refuses the client, or \
                 something in front of it refuses all requests."
            }
            false => "The response says nothing about the client.",
        };
        (Verdict::Skipped, Reason::Undecided, message.to_owned())
    } else if secrets > 1 {
        let refused = refused.join(", ");
        let message = format!(
            "The token endpoint refuses the client. Of the {secrets} client secrets it refuses number {refused}."
        );
        (Verdict::Failed, Reason::ClientRefused, message)
    } else {
        (Verdict::Failed, Reason::ClientRefused, "The token endpoint refuses the client.".to_owned())
    };
    report.add(Step::Authentication, result, reason, message, facts);
    result != Verdict::Failed
}

/// Judges whether the endpoint refuses a code that it did not issue. Returns false if it does not.
fn refusal(report: &mut Report, answer: &Answer, status: StatusCode, sent: ProbedCode) -> bool {
    let (status, result, reason, text) = match answer {
        Ok(_) => {
            (status, Verdict::Failed, Reason::UnissuedCodeAccepted, "accepts a code that was not issued".to_owned())
        }
        Err(fault @ TokenFault::Refused { status, code, .. }) => of_code(*status, code.as_str(), fault.class(), sent),
        Err(TokenFault::Status { status, .. }) if status.is_redirection() => {
            (*status, Verdict::Failed, Reason::Redirected, "is a redirect, which is not followed".to_owned())
        }
        Err(TokenFault::Status { status, .. } | TokenFault::BodyMalformed { status }) => {
            (*status, Verdict::Failed, Reason::StatusUnexpected, "comes without an error code of OAuth".to_owned())
        }
        // There is a response, which was read.
        Err(TokenFault::Call(_) | TokenFault::Request(_)) => {
            (status, Verdict::Failed, Reason::StatusUnexpected, "cannot be judged".to_owned())
        }
    };
    let facts = Facts::of("status", status.as_u16());
    report.add(Step::Status, result, reason, format!("The status {} {text}.", status.as_u16()), facts);
    result != Verdict::Failed
}

/// The meaning of an error code.
fn of_code(
    status: StatusCode,
    code: &str,
    class: TokenFailure,
    sent: ProbedCode,
) -> (StatusCode, Verdict, Reason, String) {
    let has_failed = status.is_server_error()
        || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::TOO_MANY_REQUESTS)
        || matches!(code, "server_error" | "temporarily_unavailable" | "slow_down" | "ratelimited");
    let (result, reason, text) = match (code, class) {
        _ if has_failed => (Verdict::Failed, Reason::StatusUnexpected, format!("is that of a failure: {code}")),
        ("unauthorized_client" | "unsupported_grant_type", _) => match sent {
            ProbedCode::Unused => {
                (Verdict::Ok, Reason::Passed, format!("refuses a code, as the connection uses none: {code}"))
            }
            ProbedCode::Authorization => {
                (Verdict::Warning, Reason::GrantUnsupported, format!("says that the client may not use codes: {code}"))
            }
            ProbedCode::Device => {
                let text = format!("says that the client may not use device codes: {code}");
                (Verdict::Warning, Reason::GrantUnsupported, text)
            }
        },
        (_, TokenFailure::Grant) => (Verdict::Ok, Reason::Passed, "refuses a code that was not issued".to_owned()),
        _ => (Verdict::Warning, Reason::StatusUnusual, format!("refuses the request for another reason: {code}")),
    };
    (status, result, reason, text)
}

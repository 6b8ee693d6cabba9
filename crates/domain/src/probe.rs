//! Probes of connectors and connections: what is found on the way to a system, step by step.

use std::borrow::Cow;
use std::time::Duration;

use crate::names::names;

names! {
    /// A step of a probe.
    pub enum ProbeStep {
        Definition = "DEFINITION",
        Url = "URL",
        EgressPolicy = "EGRESS_POLICY",
        Dns = "DNS",
        Tcp = "TCP",
        Proxy = "PROXY",
        Tls = "TLS",
        ClientCertificate = "CLIENT_CERTIFICATE",
        Authentication = "AUTHENTICATION",
        Status = "STATUS",
        Body = "BODY",
    }
}

names! {
    /// The result of a step.
    pub enum ProbeResult {
        Ok = "OK",
        /// Calls work, but someone should look at it.
        Warning = "WARNING",
        /// Calls fail. The steps after it are skipped.
        Failed = "FAILED",
        Skipped = "SKIPPED",
    }
}

names! {
    /// The part of a connection that a verdict is about.
    pub enum ProbeEndpoint {
        /// The connection itself, of which nothing is called.
        Connection = "CONNECTION",
        Token = "TOKEN",
        Discovery = "DISCOVERY",
        Keys = "KEYS",
        DeviceAuthorization = "DEVICE_AUTHORIZATION",
        Revocation = "REVOCATION",
        Profile = "PROFILE",
    }
}

/// The finding of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `None` in the probe of a connector, which has one URL.
    pub endpoint: Option<ProbeEndpoint>,
    pub step: ProbeStep,
    pub result: ProbeResult,
    pub reason: ProbeReason,
    /// A sentence about what was found, without secrets.
    pub message: String,
    pub duration: Duration,
    /// Names and values, without secrets.
    pub facts: Vec<(String, String)>,
    /// True if the certificate of the client is that of the key of a connection, and not that of its connector.
    pub has_client_key: bool,
}

macro_rules! reasons {
    ($($variant:ident = $name:literal: $hint:literal,)*) => {
        /// The reason of a verdict. Names do not change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProbeReason {
            $($variant,)*
        }

        impl ProbeReason {
            /// All reasons.
            pub const ALL: &[ProbeReason] = &[$(ProbeReason::$variant,)*];

            /// The name of the reason.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ProbeReason::$variant => $name,)*
                }
            }

            /// The advice for the operator of a connector. Empty: there is nothing to do.
            pub const fn hint(self) -> &'static str {
                match self {
                    $(ProbeReason::$variant => $hint,)*
                }
            }
        }
    };
}

reasons! {
    Passed = "PASSED": "",
    Undecided = "UNDECIDED": "",
    PreviousStepFailed = "PREVIOUS_STEP_FAILED": "Mend the step that failed first.",
    CallerTimeout = "CALLER_TIMEOUT": "Give the call a later deadline, or the connector shorter timeouts.",

    DefinitionInvalid = "DEFINITION_INVALID": "Correct the part of the connector, of its key or of the connection that the message names.",
    ClientIdentityExpired = "CLIENT_IDENTITY_EXPIRED": "Rotate the key that client_identity_key names.",
    ClientIdentityNotYetValid = "CLIENT_IDENTITY_NOT_YET_VALID":
        "Wait until the certificate is valid, or check the clock of the machine that issued it.",
    ClientIdentityWrongUsage = "CLIENT_IDENTITY_WRONG_USAGE":
        "Have a certificate issued whose extended key usage has clientAuth.",
    ClientIdentityExpiresSoon = "CLIENT_IDENTITY_EXPIRES_SOON": "Rotate the key that client_identity_key names.",

    UrlMissing = "URL_MISSING":
        "Give the connector, or the connection, the URL that is missing. Without one there is nothing to call.",
    UrlInvalid = "URL_INVALID": "Correct the URL as the message says.",
    PlainHttp = "PLAIN_HTTP": "Use https everywhere but in development: nothing is encrypted.",
    EgressRefused = "EGRESS_REFUSED":
        "Correct the URL, or have the operator of Jackfield allow the host or its network in egress.allow.",

    AddressLiteral = "ADDRESS_LITERAL": "",
    Unresolved = "UNRESOLVED": "Check the spelling of the host, and that DNS or the hosts file of Jackfield's machine has an address for it.",
    NameServersFailed = "NAME_SERVERS_FAILED":
        "Check /etc/resolv.conf or egress.dns_servers, and the network to the name servers.",

    Busy = "BUSY": "Try again later. If this happens often and the system can take more, raise max_concurrent_requests.",
    ConnectFailed = "CONNECT_FAILED": "Check that the system runs, its port, and the firewalls in between.",
    ConnectTimeout = "CONNECT_TIMEOUT":
        "Check that the system runs and the firewalls in between, or raise connect_timeout.",

    NoProxy = "NO_PROXY": "",
    ProxyFailed = "PROXY_FAILED": "Ask the operator of the proxy whether it permits CONNECT to this host and port.",
    ProxyAuthenticationFailed = "PROXY_AUTHENTICATION_FAILED":
        "Correct egress_proxy_username and egress_proxy_password.",

    NoTls = "NO_TLS": "",
    TlsNotSpoken = "TLS_NOT_SPOKEN": "Check the port: what answers there does not speak TLS.",
    TlsIncompatible = "TLS_INCOMPATIBLE": "Have the system offer TLS 1.2 or 1.3 with a current cipher suite.",
    TlsFailed = "TLS_FAILED": "Look into the log of the system: it ended the handshake, or the session after it.",
    ServerCertificateExpired = "SERVER_CERTIFICATE_EXPIRED": "Have the system renew its certificate.",
    ServerCertificateNotYetValid = "SERVER_CERTIFICATE_NOT_YET_VALID":
        "Check the clocks of both machines, or wait until the certificate is valid.",
    ServerCertificateUnknownAuthority = "SERVER_CERTIFICATE_UNKNOWN_AUTHORITY":
        "Name a trust bundle with the system's authority in trust_bundle_key; have the system send its intermediate \
         certificates.",
    ServerCertificateOtherHost = "SERVER_CERTIFICATE_OTHER_HOST":
        "Use a host that the certificate names, or have the system get a certificate for this one.",
    ServerCertificateWrongUsage = "SERVER_CERTIFICATE_WRONG_USAGE":
        "Have the system get a certificate whose extended key usage has serverAuth.",
    ServerCertificateInvalid = "SERVER_CERTIFICATE_INVALID": "Have the system get another certificate.",
    ServerCertificateExpiresSoon = "SERVER_CERTIFICATE_EXPIRES_SOON": "Have the system renew its certificate.",

    ClientCertificateNotRequested = "CLIENT_CERTIFICATE_NOT_REQUESTED":
        "If the system should authenticate its clients by certificate, have it ask for one.",
    ClientCertificateNotRequired = "CLIENT_CERTIFICATE_NOT_REQUIRED": "",
    ClientCertificateAccepted = "CLIENT_CERTIFICATE_ACCEPTED": "",
    ClientCertificateRequired = "CLIENT_CERTIFICATE_REQUIRED":
        "Name a key in client_identity_key. If it is named: the system did not accept that certificate.",
    ClientCertificateExpired = "CLIENT_CERTIFICATE_EXPIRED": "Rotate the key that client_identity_key names.",
    ClientCertificateNotYetValid = "CLIENT_CERTIFICATE_NOT_YET_VALID":
        "Wait until the certificate is valid, or check the clock of the machine that issued it.",
    ClientCertificateWrongUsage = "CLIENT_CERTIFICATE_WRONG_USAGE":
        "Have a certificate issued that is for clients and of a kind that the system supports.",
    ClientCertificateRevoked = "CLIENT_CERTIFICATE_REVOKED": "Rotate the key that client_identity_key names.",
    ClientCertificateUnknownAuthority = "CLIENT_CERTIFICATE_UNKNOWN_AUTHORITY":
        "Have the system trust the authority of the certificate; import the key with its intermediate certificates.",
    ClientCertificateDenied = "CLIENT_CERTIFICATE_DENIED": "Have the system give the subject of the certificate access.",
    ClientCertificateRefused = "CLIENT_CERTIFICATE_REFUSED":
        "Look into the log of the system: it gave no exact reason.",

    CredentialsAccepted = "CREDENTIALS_ACCEPTED": "",
    CredentialsNotRequired = "CREDENTIALS_NOT_REQUIRED": "",
    CredentialsOfUsers = "CREDENTIALS_OF_USERS": "",
    CredentialsRefused = "CREDENTIALS_REFUSED":
        "Correct the user name and password, or the secret headers. If they are right: the system has to reject log-ins \
         with 404, not with this status, and a licence server with an error of its API.",
    CredentialsRequired = "CREDENTIALS_REQUIRED":
        "Give the connector the user name and password, or the headers, that the system demands. If it demands none: it \
         has to reject log-ins with 404, not with this status, and a licence server with an error of its API.",

    LoginAccepted = "LOGIN_ACCEPTED": "",
    LoginRejected = "LOGIN_REJECTED": "Check the login id and the password, if they should have been accepted.",
    UnknownLoginAccepted = "UNKNOWN_LOGIN_ACCEPTED":
        "Disable the connector: its URL accepts everyone. Correct the URL, or the system.",
    Redirected = "REDIRECTED": "Give the connector the URL that the system redirects to. Redirects are not followed.",
    StatusUnusual = "STATUS_UNUSUAL": "Check the URL. Its system answers, but not as expected.",
    StatusUnexpected = "STATUS_UNEXPECTED": "Check the URL, and look into the log of the system.",
    ReadTimeout = "READ_TIMEOUT": "Look into the log of the system, or raise read_timeout.",
    TotalTimeout = "TOTAL_TIMEOUT": "Look into the log of the system, or raise total_timeout.",
    ConnectionLost = "CONNECTION_LOST": "Look into the log of the system: it closed the connection.",
    ResponseMalformed = "RESPONSE_MALFORMED": "Check the port: what answers there does not speak HTTP/1.1.",
    HeadersTooLarge = "HEADERS_TOO_LARGE": "Have the system send fewer or shorter headers.",

    BodyNotExpected = "BODY_NOT_EXPECTED": "",
    BodyTooLarge = "BODY_TOO_LARGE": "Have the system send less, or raise max_response_bytes.",
    BodyEncoded = "BODY_ENCODED": "Have the system send bodies without content-encoding, as the request asks.",
    BodyNotUtf8 = "BODY_NOT_UTF8": "Have the system send JSON in UTF-8.",
    BodyMalformed = "BODY_MALFORMED": "Check the URL: it has to answer with the JSON of its protocol.",
    UserMissing = "USER_MISSING": "Have the system put the user into the member \"user\".",
    UserIdInvalid = "USER_ID_INVALID": "Have the system send a UUID in the member \"user.id\".",
    UserUnnamed = "USER_UNNAMED": "Have the system send username, email, phoneNumber or mobilePhone of the user.",
    UserInvalid = "USER_INVALID": "Have the system send the field as the message says.",
    UserInactive = "USER_INACTIVE": "Activate the user in the system, if the log-in should have been accepted.",
    UserExpired = "USER_EXPIRED": "Extend the account of the user in the system, if the log-in should have been accepted.",
    IssuerMismatch = "ISSUER_MISMATCH": "Give the connector the issuer exactly as its discovery document has it.",
    EndpointMissing = "ENDPOINT_MISSING": "Check that the issuer is an OpenID Connect provider.",
    FieldInvalid = "FIELD_INVALID": "Have the licence server send the field as the message says.",
    CompaniesMissing = "COMPANIES_MISSING":
        "Check application_id, and in the licence server whether the user has the permission use_app for a company.",

    ConnectionInactive = "CONNECTION_INACTIVE": "Set active when the connection is to be used.",
    ConnectorDisabled = "CONNECTOR_DISABLED": "Enable the connector when its connections are to be used.",
    ConnectionTypeUnsupported = "CONNECTION_TYPE_UNSUPPORTED":
        "Make the connection one of the type CONNECTION_TYPE_OAUTH2, on a connector of the kind oauth2.",
    ClientIdMissing = "CLIENT_ID_MISSING": "Give the connection the client_id that the provider has for it.",
    ClientSecretMissing = "CLIENT_SECRET_MISSING":
        "Give the connection a client secret, or set client_authentication to CLIENT_AUTHENTICATION_NONE if the client is \
         a public one.",
    IssuerMissing = "ISSUER_MISSING":
        "Give the connection or its connector the issuer_url of the provider, or remove openid from the scope.",
    ClientKeyMissing = "CLIENT_KEY_MISSING":
        "Give the connection the key that the provider knows in client_key, or change client_authentication.",
    ClientAccepted = "CLIENT_ACCEPTED": "",
    ClientRefused = "CLIENT_REFUSED":
        "Correct client_id, client_secrets, client_key or client_authentication: they have to be those that the provider has.",
    ClientSecretRefused = "CLIENT_SECRET_REFUSED":
        "Remove the client secrets that the message names, or have the provider accept them.",
    UnissuedCodeAccepted = "UNISSUED_CODE_ACCEPTED":
        "Set the connection to inactive: its token endpoint accepts any code. Correct the URL, or the provider.",
    GrantUnsupported = "GRANT_UNSUPPORTED":
        "Have the provider permit the client to use the codes that the message names, if users are to authorise so.",
    EndpointDiffers = "ENDPOINT_DIFFERS":
        "Check the URLs that the message names: the provider publishes other ones.",
    KeysMissing = "KEYS_MISSING":
        "Check jwks_url: ID tokens can be verified only if the provider publishes a key of RSA, P-256, P-384 or Ed25519.",
}

// === impl Verdict ===

impl Verdict {
    /// The advice for the operator. Empty: there is nothing to do.
    pub fn hint(&self) -> Cow<'static, str> {
        let hint = self.reason.hint();
        match self.has_client_key {
            true => Cow::Owned(hint.replace("client_identity_key", "client_key")),
            false => Cow::Borrowed(hint),
        }
    }
}

// === impl ProbeStep ===

impl ProbeStep {
    /// All steps, in order.
    pub const ALL: [ProbeStep; 11] = [
        ProbeStep::Definition,
        ProbeStep::Url,
        ProbeStep::EgressPolicy,
        ProbeStep::Dns,
        ProbeStep::Tcp,
        ProbeStep::Proxy,
        ProbeStep::Tls,
        ProbeStep::ClientCertificate,
        ProbeStep::Authentication,
        ProbeStep::Status,
        ProbeStep::Body,
    ];
}

// === impl ProbeEndpoint ===

impl ProbeEndpoint {
    /// All endpoints, in the order in which they are probed.
    pub const ALL: [ProbeEndpoint; 7] = [
        ProbeEndpoint::Connection,
        ProbeEndpoint::Token,
        ProbeEndpoint::Discovery,
        ProbeEndpoint::Keys,
        ProbeEndpoint::DeviceAuthorization,
        ProbeEndpoint::Revocation,
        ProbeEndpoint::Profile,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_key_that_is_used() {
        let hint = |reason, has_client_key| {
            let verdict = Verdict {
                endpoint: Some(ProbeEndpoint::Token),
                step: ProbeStep::ClientCertificate,
                result: ProbeResult::Failed,
                reason,
                message: String::new(),
                duration: Duration::ZERO,
                facts: Vec::new(),
                has_client_key,
            };
            verdict.hint().into_owned()
        };
        let expired = ProbeReason::ClientCertificateExpired;
        assert_eq!(hint(expired, false), "Rotate the key that client_identity_key names.");
        assert_eq!(hint(expired, true), "Rotate the key that client_key names.");
        for reason in ProbeReason::ALL {
            assert_eq!(hint(*reason, false), reason.hint());
            assert!(!hint(*reason, true).contains("client_identity_key"), "{reason:?}");
        }
    }
}

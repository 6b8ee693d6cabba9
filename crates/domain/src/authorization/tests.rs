use uuid::Uuid;

use super::*;

fn a_session() -> AuthorizationSession {
    AuthorizationSession {
        id: Uuid::from_u128(1).into(),
        principal: "app".to_owned(),
        user_id: UserId::parse("user_id", "ada").unwrap(),
        connection: Uuid::from_u128(2).into(),
        credential: None,
        credential_create_time: None,
        scopes: Vec::new(),
        granted_scopes: Vec::new(),
        redirect_uri: RedirectUri::stored("https://app.example/back".to_owned()),
        return_uri: None,
        issuer: ExpectedIssuer::default(),
        client: AuthorizationClient {
            token_url: HttpUrl::stored("https://as.example/token".to_owned()),
            client_id: "c1".to_owned(),
        },
        allow_account_change: false,
        state: AuthorizationState::Started,
        failure: None,
        failure_detail: String::new(),
        state_digest: AuthorizationDigest::new([1; 32]),
        completion_digest: None,
        expire_time: Timestamp(10),
        meta: Meta::new(Timestamp(1)),
    }
}

#[test]
fn the_issuer_is_compared_in_all_four_cases() {
    let expected =
        |issuer: Option<&str>, is_advertised| ExpectedIssuer { issuer: issuer.map(str::to_owned), is_advertised };
    let (own, other) = ("https://a.example", "https://b.example");
    let cases = [
        (expected(Some(own), true), Some(own), Ok(())),
        (expected(Some(own), true), Some(other), Err(AuthorizationFailure::IssuerMismatch)),
        (expected(Some(own), true), None, Err(AuthorizationFailure::IssuerMissing)),
        (expected(Some(own), false), Some(own), Ok(())),
        (expected(Some(own), false), Some(other), Err(AuthorizationFailure::IssuerMismatch)),
        (expected(Some(own), false), None, Ok(())),
        // There is nothing to compare it with.
        (expected(None, false), Some(own), Err(AuthorizationFailure::IssuerMismatch)),
        (expected(None, false), None, Ok(())),
        // No normalisation.
        (expected(Some(own), true), Some("https://a.example/"), Err(AuthorizationFailure::IssuerMismatch)),
        (expected(Some(own), true), Some("https://A.example"), Err(AuthorizationFailure::IssuerMismatch)),
        (expected(Some(own), false), Some(""), Err(AuthorizationFailure::IssuerMismatch)),
    ];
    for (expected, iss, outcome) in cases {
        assert_eq!(expected.check(iss), outcome, "{expected:?} {iss:?}");
    }
}

#[test]
fn a_state_ends_at_its_time() {
    let at = |state, now| {
        let settled = AuthorizationSession { state, ..a_session() }.settled(Timestamp(now));
        (settled.state, settled.failure)
    };
    use AuthorizationState as State;
    assert_eq!(at(State::Started, 9), (State::Started, None));
    assert_eq!(at(State::Started, 10), (State::Expired, None));
    assert_eq!(at(State::Returned, 10), (State::Failed, Some(AuthorizationFailure::CodeExpired)));
    assert_eq!(at(State::Confirmed, 10), (State::Failed, Some(AuthorizationFailure::Interrupted)));
    for state in [State::Completed, State::Denied, State::Failed, State::Cancelled] {
        assert_eq!(at(state, 100), (state, None));
        assert!(state.is_final() && !state.is_open());
    }
}

#[test]
fn what_was_not_made_here_is_known_by_its_form() {
    let context = callback_context([0xa9; 32]);
    assert!(is_callback_context(&context));
    for other in [String::new(), "0".repeat(31), "0".repeat(33), "A".repeat(32), "g".repeat(32), "é".repeat(16)] {
        assert!(!is_callback_context(&other), "{other}");
    }
    assert!(is_state(&"a-_Z9".repeat(9)[..43]));
    for other in [String::new(), "a".repeat(42), "a".repeat(44), "=".repeat(43), "a b".repeat(43)[..43].to_owned()] {
        assert!(!is_state(&other), "{other}");
    }
}

#[test]
fn only_known_error_codes_are_kept() {
    let denied = AuthorizationEnd::Denied { detail: "access_denied".to_owned() };
    assert_eq!(AuthorizationEnd::of_error("access_denied"), denied);
    let failed = |detail: &str| AuthorizationEnd::failed(AuthorizationFailure::ProviderError, detail);
    assert_eq!(AuthorizationEnd::of_error("invalid_scope"), failed("invalid_scope"));
    assert_eq!(AuthorizationEnd::of_error("<script>"), failed("UNKNOWN_ERROR_CODE"));
}

#[test]
fn the_document_of_a_session_has_all_of_it() {
    let full = AuthorizationSession {
        credential: Some(Uuid::from_u128(3).into()),
        credential_create_time: Some(Timestamp(3)),
        scopes: vec!["a".to_owned()],
        granted_scopes: vec!["b".to_owned()],
        return_uri: Some(RedirectUri::stored("https://app.example/home".to_owned())),
        issuer: ExpectedIssuer { issuer: Some("https://a.example".to_owned()), is_advertised: true },
        allow_account_change: true,
        state: AuthorizationState::Failed,
        failure: Some(AuthorizationFailure::NotStored),
        failure_detail: "c".to_owned(),
        completion_digest: Some(AuthorizationDigest::new([2; 32])),
        ..a_session()
    };
    for session in [full, a_session()] {
        let document = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<AuthorizationSession>(&document).unwrap(), session);
    }
}

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
        revoked_version: None,
        scopes: Vec::new(),
        granted_scopes: Vec::new(),
        redirect_uri: Some(RedirectUri::stored("https://app.example/back".to_owned())),
        return_uri: None,
        device: None,
        browser: None,
        issuer: ExpectedIssuer::default(),
        client: AuthorizationClient {
            token_url: HttpUrl::stored("https://as.example/token".to_owned()),
            client_id: "c1".to_owned(),
        },
        allow_account_change: false,
        find_linked_users: false,
        linked_users: Vec::new(),
        linked_credentials: Vec::new(),
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
fn tokens_come_once_a_session_is_confirmed_or_while_it_is_polled_for() {
    use AuthorizationState as State;
    let polling = Some(DevicePolling::new(None));
    let takes = |state, device, now| AuthorizationSession { state, device, ..a_session() }.takes_tokens(Timestamp(now));
    assert!(takes(State::Confirmed, None, 9) && takes(State::Started, polling, 9));
    assert!(!takes(State::Started, None, 9) && !takes(State::Started, polling, 10));
    for state in [State::Returned, State::Completed, State::Denied, State::Failed, State::Cancelled, State::Expired] {
        assert!(!takes(state, polling, 9), "{state:?}");
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
        revoked_version: Some(3),
        scopes: vec!["a".to_owned()],
        granted_scopes: vec!["b".to_owned()],
        return_uri: Some(RedirectUri::stored("https://app.example/home".to_owned())),
        issuer: ExpectedIssuer { issuer: Some("https://a.example".to_owned()), is_advertised: true },
        allow_account_change: true,
        find_linked_users: true,
        linked_users: vec![UserId::parse("user_id", "eve").unwrap()],
        linked_credentials: vec![Uuid::from_u128(4).into()],
        state: AuthorizationState::Failed,
        failure: Some(AuthorizationFailure::NotStored),
        failure_detail: "c".to_owned(),
        completion_digest: Some(AuthorizationDigest::new([2; 32])),
        ..a_session()
    };
    let polled = AuthorizationSession {
        redirect_uri: None,
        device: Some(DevicePolling { interval: 5, unanswered: 1, is_answer_lost: true }),
        ..a_session()
    };
    let bound = AuthorizationSession { browser: Some(BrowserBinding::default()), ..a_session() };
    let mut opened = bound.clone();
    assert!(opened.bind(&[AuthorizationDigest::new([4; 32])], Timestamp(2)));
    for session in [full, polled, bound, opened, a_session()] {
        let document = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<AuthorizationSession>(&document).unwrap(), session);
    }
}

#[test]
fn a_session_is_bound_to_the_first_browser() {
    let digest = |byte| AuthorizationDigest::new([byte; 32]);
    let mut session = AuthorizationSession { browser: Some(BrowserBinding::default()), ..a_session() };
    assert!(!session.is_bound() && !session.is_bound_to(&[]) && !session.is_bound_to(&[digest(4)]));
    assert!(session.bind(&[digest(4)], Timestamp(2)) && session.is_bound());
    let bound = session.clone();
    assert!(!session.bind(&[digest(5)], Timestamp(3)) && session.bind(&[digest(4)], Timestamp(3)));
    assert_eq!(session, bound, "the same browser may open it again, which changes nothing");
    assert!(session.is_bound_to(&[digest(4)]) && !session.is_bound_to(&[digest(5)]) && !session.is_bound_to(&[]));
    let mut ended = AuthorizationSession { state: AuthorizationState::Cancelled, ..bound };
    let mut other = a_session();
    assert!(!ended.bind(&[digest(4)], Timestamp(2)) && !other.bind(&[digest(5)], Timestamp(2)));
    assert!(!other.is_bound_to(&[]), "one without a cookie belongs to no browser");
    let returns = std::iter::repeat_with(|| session.count_vain_return()).take_while(|may_return| *may_return);
    assert_eq!(returns.count(), 9);
    assert!(!other.count_vain_return());
}

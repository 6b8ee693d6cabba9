use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::value::secret::{Secret, SecretPatch};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A credential that has an access token.
pub(super) fn credential(requested: &[&str], granted: &[&str]) -> Credential {
    let id = |number| Uuid::from_u128(number);
    let meta = Meta::new(Timestamp(1));
    serde_json::from_value(json!({
        "id": id(1), "user_id": "a", "connector": id(2), "user_connector": id(3), "connection": id(5), "kind": "OAUTH2",
        "state": "VALID", "token_type": "Bearer", "requested_scopes": requested, "scopes": granted, "material_version": 1,
        "default_configuration": id(4), "meta": meta,
    }))
    .expect("a document")
}

#[test]
fn scopes_are_missing_that_were_asked_for_and_not_granted() {
    let missing = |requested: &[&str], granted: &[&str]| credential(requested, granted).missing_scopes();
    assert_eq!(missing(&["a", "b", "c"], &["c", "d"]), texts(&["a", "b"]));
    assert_eq!(missing(&["a"], &["a"]), texts(&[]));
    assert_eq!(missing(&[], &["a"]), texts(&[]), "a caller stored the material");
    let without_token = Credential { token_type: String::new(), ..credential(&["a"], &[]) };
    assert_eq!(without_token.missing_scopes(), texts(&[]));
}

/// Microsoft grants it with a refresh token, and does not name it.
#[test]
fn a_refresh_token_shows_that_offline_access_was_granted() {
    let mut credential = credential(&["a", "offline_access"], &["a"]);
    assert_eq!(credential.missing_scopes(), texts(&["offline_access"]));
    credential.refreshable = true;
    assert_eq!(credential.missing_scopes(), texts(&[]));
}

#[test]
fn only_what_was_never_tried_awaits_its_exchange() {
    let alone = Credential { token_type: String::new(), refreshable: true, ..credential(&[], &[]) };
    assert!(alone.awaits_exchange());
    let failed = Credential { failure_class: Some(FailureClass::Transient), ..alone.clone() };
    let unconnected = Credential { connection: None, ..alone.clone() };
    let without_token = Credential { refreshable: false, ..alone.clone() };
    let with_token = Credential { token_type: "Bearer".to_owned(), ..alone };
    assert!([failed, unconnected, without_token, with_token].iter().all(|it| !it.awaits_exchange()));
}

/// Some providers give the same token again within a time of reuse.
#[test]
fn a_refresh_token_stays_if_responses_of_a_day_show_it() {
    const HOUR: i64 = 3_600 * 1_000_000;
    let rotates_after = |responses: &[(bool, i64)]| {
        let mut credential = credential(&[], &[]);
        responses.iter().for_each(|(rotated, hours)| credential.note_rotation(*rotated, Timestamp(hours * HOUR)));
        credential.refresh_token_rotates()
    };
    let cases: [(&[(bool, i64)], bool); 10] = [
        (&[], true),
        (&[(false, 0), (false, 1), (false, 2), (false, 3), (false, 23)], true),
        (&[(false, 0), (false, 24)], true),
        (&[(false, 0), (false, 12), (false, 24)], false),
        (&[(false, 0), (false, 1), (false, 2), (false, 24)], false),
        (&[(false, 0), (false, 12), (false, 24), (false, 25)], false),
        (&[(false, 0), (false, 12), (false, 24), (true, 25)], true),
        // What was seen before a new refresh token says nothing about that.
        (&[(false, 0), (false, 12), (true, 13), (false, 24), (false, 36), (false, 37)], true),
        (&[(false, 0), (false, 12), (true, 13), (false, 24), (false, 36), (false, 48)], false),
        // The clock was set back.
        (&[(false, 24), (false, 12), (false, 0)], true),
    ];
    for (responses, rotates) in cases {
        assert_eq!(rotates_after(responses), rotates, "{responses:?}");
    }
    // It was learnt when three responses within minutes were enough.
    let mut early = Credential { refresh_token_kept_count: 3, ..credential(&[], &[]) };
    assert!(early.refresh_token_rotates());
    early.note_rotation(false, Timestamp(0));
    assert!(early.refresh_token_rotates() && early.refresh_token_kept_count == 1);
}

const PARENTS: ParentStates = ParentStates { connector_enabled: true, connection_active: Some(true) };

fn explained(credential: &Credential, now: i64) -> Explanation {
    credential.explain(PARENTS, &RefreshOutlook::default(), Timestamp(now))
}

/// The explanation of a credential whose refreshes are held back.
fn held(credential: &Credential, hold: RefreshHold, next: Option<i64>, now: i64) -> Explanation {
    let outlook = RefreshOutlook { hold: Some(hold), next: next.map(Timestamp), is_under_way: false };
    credential.explain(PARENTS, &outlook, Timestamp(now))
}

#[test]
fn a_token_that_nothing_replaces_is_said_to_die() {
    let lasting = credential(&[], &[]);
    assert_eq!(explained(&lasting, 1).next_step, NextStep::None);
    let dying = Credential { expire_time: Some(Timestamp(10)), ..lasting };
    let said = explained(&dying, 1);
    assert_eq!((said.obstacle, said.next_step), (None, NextStep::Reauthorize));
    assert!(said.text.contains(&Timestamp(10).to_string()), "{}", said.text);
    assert!(explained(&dying, 10).obstacle.is_some());
    let unconnected = Credential { connection: None, ..dying.clone() };
    let with_token = Credential { refreshable: true, ..unconnected.clone() };
    for (credential, lacking) in [
        (&dying, "there is no refresh token to replace it"),
        (&unconnected, "neither a refresh token nor a connection"),
        (&with_token, "there is no connection through which"),
    ] {
        for now in [1, 10] {
            let said = explained(credential, now);
            assert!(said.text.contains(lacking), "{}", said.text);
        }
    }
    let replaced = Credential { refreshable: true, ..dying };
    assert_eq!(explained(&replaced, 1).next_step, NextStep::None);
}

#[test]
fn one_that_no_user_can_authorize_needs_new_material() {
    let revoked = Credential { state: CredentialState::Revoked, ..credential(&[], &[]) };
    assert_eq!(explained(&revoked, 1).next_step, NextStep::Reauthorize);
    let of_client = Credential { client_grant: true, ..revoked.clone() };
    let unconnected = Credential { connection: None, ..revoked.clone() };
    let of_key = Credential { kind: CredentialKind::ApiKey, ..revoked };
    for credential in [of_client, unconnected, of_key] {
        let said = explained(&credential, 1);
        assert_eq!((said.obstacle, said.next_step), (Some("CREDENTIAL_NOT_VALID"), NextStep::StoreMaterial));
    }
    let dead = Credential { connection: None, expire_time: Some(Timestamp(10)), ..credential(&[], &[]) };
    assert_eq!([1, 10].map(|now| explained(&dead, now).next_step), [NextStep::StoreMaterial; 2]);
}

/// A credential whose token expires after 10 µs, and can be refreshed.
fn refreshed() -> Credential {
    Credential { refreshable: true, expire_time: Some(Timestamp(10)), ..credential(&[], &[]) }
}

#[test]
fn a_provider_that_is_not_asked_is_waited_for() {
    let until = Timestamp(20_000_000);
    for (hold, name) in [
        (RefreshHold::Silent { until }, "CIRCUIT_OPEN"),
        (RefreshHold::Paused { until }, "PROVIDER_PAUSE"),
        (RefreshHold::BackOff { reason: "READ_TIMEOUT".to_owned(), until }, "READ_TIMEOUT"),
        (
            RefreshHold::Repeat { reason: "READ_TIMEOUT".to_owned(), until, accepted_until: Timestamp(21_000_000) },
            "accepts the refresh token again until 1970-01-01T00:00:21",
        ),
    ] {
        let said = [1, 10].map(|now| held(&refreshed(), hold.clone(), None, now));
        assert_eq!(said.each_ref().map(|said| said.obstacle), [None, Some("UPSTREAM_UNAVAILABLE")]);
        for said in &said {
            assert_eq!(said.next_step, NextStep::Wait);
            assert!(said.text.contains(name) && said.text.contains(&until.to_string()), "{}", said.text);
            assert!(said.text.ends_with("from 1970-01-01T00:00:20Z on"), "{}", said.text);
        }
        let by_itself = held(&refreshed(), hold, Some(30_000_000), 1).text;
        assert!(by_itself.ends_with("it is asked again at 1970-01-01T00:00:30Z"), "{by_itself}");
    }
    let lost = RefreshHold::Final { class: FailureClass::Indeterminate, reason: "PROCESS_ENDED".to_owned() };
    let said = held(&refreshed(), lost, None, 10);
    assert_eq!((said.obstacle, said.next_step), (Some("REAUTH_REQUIRED"), NextStep::Reauthorize));
    let journal = held(&refreshed(), RefreshHold::Journal, None, 10);
    assert_eq!((journal.obstacle, journal.next_step), (Some("SERVER_UNAVAILABLE"), NextStep::Wait));
    assert!(journal.text.contains("refresh.journal"), "{}", journal.text);
}

#[test]
fn a_connection_that_cannot_be_used_is_corrected() {
    let refused = |obstacle, until: Option<i64>| RefreshHold::Refused {
        obstacle,
        reason: "invalid_client".to_owned(),
        until: until.map(Timestamp),
    };
    let known = held(&refreshed(), refused(Some("CONNECTION_REFUSED"), Some(20)), None, 10);
    assert_eq!((known.obstacle, known.next_step), (Some("CONNECTION_REFUSED"), NextStep::CorrectConnection));
    let over = held(&refreshed(), refused(None, None), None, 10);
    assert_eq!((over.obstacle, over.next_step), (None, NextStep::CorrectConnection), "the provider is asked");
    let message = "connection.token_url is required".to_owned();
    let lacking = RefreshHold::Incomplete { obstacle: "CONNECTION_INCOMPLETE", message };
    let said = held(&refreshed(), lacking, None, 10);
    assert_eq!((said.obstacle, said.next_step), (Some("CONNECTION_INCOMPLETE"), NextStep::CorrectConnection));
}

#[test]
fn the_next_refresh_is_told() {
    let said = |outlook: &RefreshOutlook, now| refreshed().explain(PARENTS, outlook, Timestamp(now)).text;
    let at = RefreshOutlook { next: Some(Timestamp(5_000_000)), ..RefreshOutlook::default() };
    assert!(said(&at, 1).contains("it is refreshed at 1970-01-01T00:00:05Z"), "{}", said(&at, 1));
    assert!(said(&at, 10).ends_with("at 1970-01-01T00:00:05Z at the latest"), "{}", said(&at, 10));
    let none = RefreshOutlook::default();
    assert!(said(&none, 1).contains("when it is asked for") && said(&none, 10).ends_with("when it is asked for"));
    let going = RefreshOutlook { is_under_way: true, ..at };
    assert!([1, 10].iter().all(|now| said(&going, *now).contains("a refresh is under way")));
}

#[test]
fn a_rejected_token_is_said_to_be_rejected() {
    let challenge = r#"Bearer error="insufficient_scope", scope="b c""#;
    let answer = ApiAnswer::parse(403, challenge).expect("an answer");
    let mut rejected = refreshed();
    rejected.keep_rejection(TokenRejection::of(&answer, 1, false, Timestamp(1)));
    let said = explained(&rejected, 2);
    assert_eq!((said.obstacle, said.next_step), (None, NextStep::Reauthorize));
    assert!(said.text.contains("(403 insufficient_scope) and demands the scopes b c"), "{}", said.text);
    rejected.material_version += 1;
    assert_eq!(explained(&rejected, 2).next_step, NextStep::None, "it was another token");
    let mut key = Credential { kind: CredentialKind::ApiKey, refreshable: false, ..rejected };
    key.keep_rejection(TokenRejection::of(&ApiAnswer::default(), 2, true, Timestamp(1)));
    assert_eq!(explained(&key, 2).next_step, NextStep::StoreMaterial, "nothing replaces it");
}

#[test]
fn what_a_token_lacks_is_said() {
    let end = Some(Timestamp(20));
    let said = explained(&Credential { authorization_expire_time: end, ..credential(&["a", "b"], &["a"]) }, 1).text;
    assert!(said.contains("asked for: b;") && said.contains(&Timestamp(20).to_string()), "{said}");
}

#[test]
fn the_end_of_an_authorisation_goes_with_its_refresh_token() {
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    let stored = || OAuth2Material {
        refresh_token: secret("stored"),
        authorization_expire_time: Some(Timestamp(7)),
        ..OAuth2Material::default()
    };
    let end = |material: OAuth2Material| material.authorization_expire_time;
    assert_eq!(end(OAuth2Material::default().or_stored(stored())), Some(Timestamp(7)));
    let given = OAuth2Material { refresh_token: secret("given"), ..OAuth2Material::default() };
    assert_eq!(end(given.or_stored(stored())), None);
    let patched = |refresh_token| end(TokensPatch { refresh_token, ..TokensPatch::default() }.applied(stored()));
    assert_eq!(patched(SecretPatch::Keep), Some(Timestamp(7)));
    assert_eq!(patched(SecretPatch::Clear), None);
    assert_eq!(patched(SecretPatch::Set(Secret::new("other".to_owned()))), None);
    assert_eq!(end(stored().duplicate()), Some(Timestamp(7)));
}

#[test]
fn a_digest_of_an_address_goes_with_its_account() {
    let with_digest = || Credential {
        provider_account_id: "account".to_owned(),
        email_digest: Some(EmailDigest::new([7; 32])),
        ..credential(&[], &[])
    };
    for (account, stays) in [(None, true), (Some("account"), true), (Some("another"), false), (Some(""), false)] {
        let mut changed = with_digest();
        let patch = CredentialPatch { provider_account_id: account.map(str::to_owned), ..CredentialPatch::default() };
        changed.apply(&patch).unwrap();
        assert_eq!(changed.email_digest.is_some(), stays, "{account:?}");
    }
    let mut revoked = with_digest();
    revoked.revoke(Timestamp(2));
    assert_eq!(revoked.email_digest, None);
}

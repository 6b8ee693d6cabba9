//! Users with the same identity: those whom a completed authorisation names, and those whom it does not.

mod gone;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationState as State, LinkingType as Linking};
use jackfield_domain::ConnectionId;
use jackfield_domain::value::text::UserId;
use jackfield_testkit::store::IdentityMark;
use jackfield_testkit::{Client, OAuthProvider, TestServer, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::Code;

use super::device::ended;
use super::{BACK, World, complete, get};
use crate::steps;

const LINKINGS: [Linking; 3] = [Linking::Disabled, Linking::Explicit, Linking::Automatic];

/// Endpoints with keys and a profile.
fn endpoints(provider: &OAuthProvider) -> v1::OAuth2Connector {
    v1::OAuth2Connector {
        jwks_url: Some(provider.system.url("/jwks")),
        profile_url: Some(provider.system.url("/profile")),
        ..Default::default()
    }
}

fn automatic(connection: &mut v1::Connection) {
    connection.scope = Some("openid read".to_owned());
    connection.linking = Linking::Automatic.into();
}

/// A world whose connection names other users always.
async fn world(server: &TestServer) -> World {
    World::on(server, endpoints, |_, connection| automatic(connection)).await
}

/// Another connection of the world, with its provider.
async fn another(world: &World, name: &str) -> v1::Connection {
    let mut connection = v1::Connection {
        redirect_uris: vec![BACK.to_owned()],
        ..world.provider.connection(name, &world.connection.connector)
    };
    automatic(&mut connection);
    let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    world.client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap()
}

async fn update(client: &Client, reference: &str, path: &'static str, connection: v1::Connection) {
    let request = v1::UpdateConnectionRequest {
        reference: reference.to_owned(),
        connection: Some(connection),
        update_mask: fixture::mask([path]),
        ..Default::default()
    };
    client.connections().update_connection(request).await.unwrap();
}

async fn set_linking(world: &World, connection: &v1::Connection, linking: Linking) {
    let change = v1::Connection { linking: linking.into(), ..Default::default() };
    update(&world.client, &connection.id, "linking", change).await;
}

async fn set_trust(world: &World, connection: &v1::Connection, trusts: bool) {
    let change = v1::Connection { trust_identity_user_id: Some(trusts), ..Default::default() };
    update(&world.client, &connection.id, "trust_identity_user_id", change).await;
}

/// From now on ID tokens are those of this account. A member that is null is not there.
fn becomes(world: &World, sub: &str, members: Value) {
    let sub = sub.to_owned();
    world.provider.openid.change(move |token| {
        token.claims["sub"] = sub.as_str().into();
        for (name, value) in members.as_object().expect("members") {
            token.claims[name] = value.clone();
        }
    });
}

/// The members of an account with a verified address.
fn verified(email: &str) -> Value {
    json!({ "email": email, "email_verified": true })
}

fn request(world: &World, connection: &v1::Connection, user_id: &str, asks: bool) -> v1::StartAuthorizationRequest {
    v1::StartAuthorizationRequest {
        connection: connection.id.clone(),
        find_linked_users: asks.then_some(true),
        ..world.request(user_id)
    }
}

/// Authorises a user at a connection.
async fn authorized(world: &World, connection: &v1::Connection, user_id: &str, asks: bool) -> v1::AuthorizationSession {
    let (session, url) = world.start(request(world, connection, user_id, asks)).await;
    assert!(session.linked_users.is_empty(), "{session:?}");
    let brought = world.provider.visit(&url).await;
    let session = complete(&world.client, brought.completion(user_id)).await.unwrap();
    assert_eq!(session.state(), State::Completed, "{session:?}");
    session
}

/// The other users whom the authorisation of a user names.
async fn named(world: &World, connection: &v1::Connection, user_id: &str) -> Vec<String> {
    authorized(world, connection, user_id, false).await.linked_users
}

/// Stores a credential with an account, as a caller that imports it.
async fn imported(world: &World, connection: &v1::Connection, user_id: &str, account: &str) -> v1::Credential {
    steps::link(&world.client, user_id, &connection.connector).await;
    let facts = v1::Credential {
        connection: connection.id.clone(),
        provider_account_id: Some(account.to_owned()),
        ..fixture::a_credential(user_id, &connection.connector)
    };
    steps::credential(&world.client, facts, fixture::oauth2_material("at", "rt")).await
}

/// The number of credentials that have a digest of an address.
async fn digests(server: &TestServer) -> String {
    server.sql("SELECT count(*) FROM credential WHERE email_digest IS NOT NULL").await.remove(0)
}

on_both! {
    async fn both_connections_have_to_allow_it(server) {
        let world = world(&server).await;
        let other = another(&world, "other").await;
        let mut number = 0;
        for one in LINKINGS {
            for own in LINKINGS {
                for asks in [false, true] {
                    number += 1;
                    let case = format!("{} {} {asks}", one.as_str_name(), own.as_str_name());
                    let (known, new) = (format!("known-{number}"), format!("new-{number}"));
                    let email = verified(&format!("user-{number}@example.com"));
                    // The connections count as they are when the second user comes.
                    set_linking(&world, &world.connection, Linking::Automatic).await;
                    becomes(&world, &known, email.clone());
                    authorized(&world, &world.connection, &known, false).await;
                    set_linking(&world, &world.connection, one).await;
                    set_linking(&world, &other, own).await;
                    if asks && own == Linking::Disabled {
                        let request = request(&world, &other, &new, asks);
                        let refused = world.client.connections().start_authorization(request).await;
                        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["find_linked_users"]);
                        continue;
                    }
                    let is_named = match (one, own) {
                        (Linking::Disabled, _) | (_, Linking::Disabled) => false,
                        (Linking::Automatic, Linking::Automatic) => true,
                        _ => asks,
                    };
                    becomes(&world, &new, email);
                    let session = authorized(&world, &other, &new, asks).await;
                    let expected = if is_named { vec![known] } else { Vec::new() };
                    assert_eq!(session.linked_users, expected, "{case}");
                    let read = get(&world.client, &session.id).await.unwrap();
                    assert_eq!(read, session, "{case}");
                }
            }
        }
    }

    async fn an_account_is_the_same_at_its_own_connection(server) {
        let world = world(&server).await;
        for (number, linking) in LINKINGS.into_iter().enumerate() {
            set_linking(&world, &world.connection, linking).await;
            let account = format!("account-{number}");
            becomes(&world, &account, json!({}));
            let of = |name: &str| format!("{name}-{number}");
            authorized(&world, &world.connection, &of("known"), false).await;
            let unasked = named(&world, &world.connection, &of("new")).await;
            let expected = if linking == Linking::Automatic { vec![of("known")] } else { Vec::new() };
            assert_eq!(unasked, expected, "{}", linking.as_str_name());
            if linking != Linking::Disabled {
                let asked = authorized(&world, &world.connection, &of("last"), true).await.linked_users;
                assert_eq!(asked, [of("known"), of("new")], "{}", linking.as_str_name());
            }
        }
    }

    async fn an_address_counts_if_it_is_verified(server) {
        let world = world(&server).await;
        for (number, (members, is_named)) in [
            (json!({ "email_verified": true }), true),
            (json!({ "email_verified": "true" }), true),
            (json!({ "email_verified": false }), false),
            (json!({ "email_verified": "false" }), false),
            (json!({ "email_verified": "yes" }), false),
            (json!({ "email_verified": 1 }), false),
            (json!({}), false),
        ]
        .into_iter()
        .enumerate()
        {
            let of = |name: &str| format!("{name}-{number}");
            let with = |email: String| {
                let mut members = members.clone();
                members["email"] = email.into();
                members
            };
            // The first is verified in any case.
            becomes(&world, &of("sub-of-known"), verified(&format!("user-{number}@example.com")));
            authorized(&world, &world.connection, &of("known"), false).await;
            becomes(&world, &of("sub-of-new"), with(format!("  User-{number}@EXAMPLE.com ")));
            let expected = if is_named { vec![of("known")] } else { Vec::new() };
            assert_eq!(named(&world, &world.connection, &of("new")).await, expected, "{members}");
            // And the other way round.
            becomes(&world, &of("sub-of-third"), verified(&format!("user-{number}@example.com")));
            let expected = if is_named { vec![of("known"), of("new")] } else { vec![of("known")] };
            assert_eq!(named(&world, &world.connection, &of("third")).await, expected, "{members}");
        }
        let stored = server.sql("SELECT email_digest FROM credential WHERE email_digest IS NOT NULL").await;
        // Seven that are verified in any case, seven that came back, and two that were said to be verified.
        assert_eq!(stored.len(), 16, "{stored:?}");
        assert!(stored.iter().all(|digest| digest.len() == 64), "{stored:?}");
        assert_eq!(server.sql("SELECT doc FROM credential WHERE doc LIKE '%xample.com%'").await, Vec::<String>::new());
        let sessions = server.sql("SELECT doc FROM authorization_session WHERE lower(doc) LIKE '%@example.com%'").await;
        assert_eq!(sessions, Vec::<String>::new());
    }

    async fn an_account_is_the_same_at_another_connection_if_both_trust_its_id(server) {
        let world = world(&server).await;
        let other = another(&world, "other").await;
        for (number, (one, own)) in [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate() {
            set_trust(&world, &world.connection, one).await;
            set_trust(&world, &other, own).await;
            let of = |name: &str| format!("{name}-{number}");
            becomes(&world, &of("account"), json!({}));
            authorized(&world, &world.connection, &of("known"), false).await;
            let expected = if one && own { vec![of("known")] } else { Vec::new() };
            assert_eq!(named(&world, &other, &of("new")).await, expected, "{one} {own}");
        }
        // Trust alone links nothing.
        set_linking(&world, &world.connection, Linking::Disabled).await;
        becomes(&world, "account-3", json!({}));
        assert_eq!(named(&world, &other, "last").await, ["new-3"]);
    }

    async fn an_account_of_another_provider_is_another_one(server) {
        let trusting = |_: &OAuthProvider, connection: &mut v1::Connection| {
            automatic(connection);
            connection.trust_identity_user_id = Some(true);
        };
        let nameless = |provider: &OAuthProvider, connection: &mut v1::Connection| {
            trusting(provider, connection);
            (connection.issuer_url, connection.iss_parameter_supported) = (None, None);
        };
        let world = World::on(&server, endpoints, nameless).await;
        let foreign = World::named(server.client("alpha"), ["foreign", "foreign"], endpoints, trusting).await;
        imported(&world, &world.connection, "ada", "4211").await;
        becomes(&foreign, "4211", json!({}));
        assert_eq!(named(&foreign, &foreign.connection, "eve").await, Vec::<String>::new());
        // Two connectors may be of one provider, which its issuer says.
        let issuer_url = foreign.connection.issuer_url.clone();
        let change = v1::Connection { issuer_url, ..Default::default() };
        update(&world.client, &world.connection.id, "issuer_url", change).await;
        assert_eq!(named(&foreign, &foreign.connection, "grace").await, ["ada", "eve"]);
        // And the connections of one connector may be of two.
        let partner = another(&foreign, "partner").await;
        set_trust(&foreign, &partner, true).await;
        let issuer_url = Some("https://partner.example.com".to_owned());
        update(&world.client, &partner.id, "issuer_url", v1::Connection { issuer_url, ..Default::default() }).await;
        imported(&foreign, &partner, "mallory", "4211").await;
        assert_eq!(named(&foreign, &foreign.connection, "heidi").await, ["ada", "eve", "grace"]);
    }

    async fn users_of_another_tenant_are_never_named(server) {
        let trusting = |connection: &mut v1::Connection| {
            automatic(connection);
            connection.trust_identity_user_id = Some(true);
        };
        let alpha = World::on(&server, endpoints, |_, connection| trusting(connection)).await;
        let beta = World::of(server.client("beta"), endpoints, |_, connection| trusting(connection)).await;
        for world in [&alpha, &beta] {
            becomes(world, "account", verified("ada@example.com"));
        }
        authorized(&alpha, &alpha.connection, "ada-of-alpha", false).await;
        for (user_id, expected) in [("ada-of-beta", vec![]), ("second-of-beta", vec!["ada-of-beta"])] {
            assert_eq!(authorized(&beta, &beta.connection, user_id, true).await.linked_users, expected);
        }
        assert_eq!(named(&alpha, &alpha.connection, "second-of-alpha").await, ["ada-of-alpha"]);
        // Nor does the database show that they have the same address.
        let stored = server.sql("SELECT email_digest FROM credential GROUP BY email_digest").await;
        assert_eq!(stored.len(), 2, "{stored:?}");
    }

    async fn an_address_goes_with_the_material_it_came_with(server) {
        let world = world(&server).await;
        let change = async |credential: &str, facts: v1::Credential, material: Option<v1::CredentialMaterial>| {
            let (reference, credential) = (credential.to_owned(), Some(facts));
            let request = v1::UpdateCredentialRequest { reference, credential, material, ..Default::default() };
            world.client.credentials().update_credential(request).await.unwrap();
        };
        becomes(&world, "account-1", verified("ada@example.com"));
        let known = authorized(&world, &world.connection, "known", false).await.credential;
        let labels = fixture::strings([("a", "b")]);
        change(&known, v1::Credential { labels, ..Default::default() }, None).await;
        becomes(&world, "account-2", verified("ada@example.com"));
        let second = authorized(&world, &world.connection, "second", false).await;
        assert_eq!(second.linked_users, ["known"], "labels say nothing of the account");
        change(&known, v1::Credential::default(), Some(fixture::oauth2_material("at", "rt"))).await;
        assert_eq!(digests(&server).await, "1");
        let account = v1::Credential { provider_account_id: Some("of-the-caller".to_owned()), ..Default::default() };
        change(&second.credential, account, None).await;
        assert_eq!(digests(&server).await, "0");
        becomes(&world, "account-3", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "third").await, Vec::<String>::new());
        // Another account has another address.
        becomes(&world, "account-4", verified("eve@example.com"));
        let second = steps::credential_now(&world.client, &second.credential).await;
        let session = world.again_with(&second, true).await;
        assert_eq!((session.state(), session.linked_users.len()), (State::Completed, 0), "{session:?}");
        becomes(&world, "account-5", verified("eve@example.com"));
        assert_eq!(named(&world, &world.connection, "fifth").await, ["second"]);
        becomes(&world, "account-6", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "sixth").await, ["third"]);
    }

    async fn no_address_is_kept_of_a_connection_that_links_nothing(server) {
        let world = world(&server).await;
        set_linking(&world, &world.connection, Linking::Disabled).await;
        becomes(&world, "account-1", verified("ada@example.com"));
        authorized(&world, &world.connection, "known", false).await;
        assert_eq!(digests(&server).await, "0");
        set_linking(&world, &world.connection, Linking::Automatic).await;
        becomes(&world, "account-2", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "new").await, Vec::<String>::new());
        becomes(&world, "account-1", json!({}));
        assert_eq!(named(&world, &world.connection, "other").await, ["known"], "accounts were kept all the same");
    }

    async fn ten_others_are_named_and_not_the_user(server) {
        let world = world(&server).await;
        let users: Vec<String> = (1..=12).map(|number| format!("user-{number}")).collect();
        for user in &users {
            imported(&world, &world.connection, user, "account").await;
        }
        // Those of one user count once.
        imported_again(&world, "user-1", "account").await;
        imported(&world, &world.connection, "of-another-account", "account-2").await;
        becomes(&world, "account", json!({}));
        assert_eq!(named(&world, &world.connection, "new").await, users[..10]);
        assert_eq!(named(&world, &world.connection, "user-2").await, [&users[..1], &users[2..11]].concat());
        let brought = world.visited("user-1").await.1;
        let wrong = v1::CompleteAuthorizationRequest { code: "wrong".to_owned(), ..brought.completion("user-1") };
        let session = complete(&world.client, wrong).await.unwrap();
        assert_eq!((session.state(), session.linked_users.len()), (State::Failed, 0), "{session:?}");
    }

    async fn only_the_oldest_credentials_are_looked_at(server) {
        let world = world(&server).await;
        let revoked = imported(&world, &world.connection, "revoked", "account").await.id;
        for user in ["own", "other", "last"] {
            imported(&world, &world.connection, user, "account").await;
        }
        let revoke = v1::RevokeCredentialRequest { reference: revoked, ..Default::default() };
        world.client.credentials().revoke_credential(revoke).await.unwrap();
        let (store, tenant) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let (connection, own) = (ConnectionId(world.connection.id.parse().unwrap()), UserId::stored("own".to_owned()));
        for mark in [IdentityMark::AccountAt(connection, "account"), IdentityMark::Account("account")] {
            for (limit, expected) in [(2, vec![]), (3, vec!["other"]), (4, vec!["other", "last"])] {
                let found = store.read().credentials_fetch_identical(tenant, &own, mark, limit).await.unwrap();
                let users: Vec<&str> = found.iter().map(|credential| credential.user_id.as_str()).collect();
                assert_eq!(users, expected, "{mark:?} {limit}");
            }
        }
        store.close().await;
    }

    async fn a_look_up_that_fails_costs_no_tokens(server) {
        let world = world(&server).await;
        let other = another(&world, "other").await;
        becomes(&world, "account-1", verified("ada@example.com"));
        authorized(&world, &other, "known", false).await;
        becomes(&world, "account-2", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "second").await, ["known"]);
        server.sql("UPDATE connection SET doc = '{' WHERE name_key = 'other'").await;
        becomes(&world, "account-3", verified("ada@example.com"));
        let session = authorized(&world, &world.connection, "third", false).await;
        assert_eq!(session.linked_users, Vec::<String>::new());
        assert_eq!(steps::credential_now(&world.client, &session.credential).await.user_id, "third");
        assert_eq!(digests(&server).await, "3", "its tokens are stored once, with the digest");
    }

    /// A replica of an earlier version writes the document of another account, and leaves the column.
    async fn a_digest_counts_if_the_document_has_it(server) {
        let world = world(&server).await;
        becomes(&world, "account-1", verified("ada@example.com"));
        authorized(&world, &world.connection, "known", false).await;
        becomes(&world, "account-2", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "second").await, ["known"]);
        server.sql("UPDATE credential SET doc = replace(doc, '\"email_digest\"', '\"another\"') WHERE user_id = 'known'").await;
        assert_eq!(digests(&server).await, "2");
        becomes(&world, "account-3", verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "third").await, ["second"]);
    }

    async fn a_session_with_a_device_code_names_users_as_well(server) {
        let world = world(&server).await;
        becomes(&world, "account", verified("ada@example.com"));
        authorized(&world, &world.connection, "known", false).await;
        world.provider.openid.asked_without_nonce();
        let completion_mode = v1::CompletionMode::Device.into();
        let request = v1::StartAuthorizationRequest { completion_mode, ..world.request("new") };
        let begun = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        world.provider.approve(&begun.user_code).await;
        let session = ended(&world.client, &begun.authorization.unwrap().id).await;
        assert_eq!((session.state(), &*session.linked_users), (State::Completed, &["known".to_owned()][..]), "{session:?}");
    }

    async fn a_profile_may_have_the_address_that_the_id_token_lacks(server) {
        let world = world(&server).await;
        let publish = |status, sub: &str, email: &str| {
            let profile = json!({ "sub": sub, "email": email, "email_verified": true });
            world.provider.openid.publish("/profile", status, &profile);
        };
        becomes(&world, "account-1", verified("ada@example.com"));
        authorized(&world, &world.connection, "known", false).await;
        assert_eq!(world.provider.fetched("/profile"), 0, "the ID token has the address");
        // An address of which the ID token does not say whether it is verified is not the one of the profile.
        publish(200, "account-2", "ada@example.com");
        becomes(&world, "account-2", json!({ "email": "other@example.com" }));
        assert_eq!(named(&world, &world.connection, "second").await, ["known"]);
        assert_eq!(world.provider.fetched("/profile"), 1);
        // A profile that cannot be had, or is that of another user, is no reason to fail.
        for (number, (status, sub)) in [(404, "account-3"), (500, "account-3"), (200, "another")].into_iter().enumerate() {
            publish(status, sub, "ada@example.com");
            becomes(&world, "account-3", json!({}));
            let (user_id, before) = (format!("third-{number}"), world.provider.fetched("/profile"));
            let session = authorized(&world, &world.connection, &user_id, false).await;
            assert!(!session.linked_users.contains(&"known".to_owned()), "{session:?}");
            assert_eq!(world.provider.fetched("/profile"), before + 1, "it is asked for once");
        }
        // A connection that links nothing does not ask.
        set_linking(&world, &world.connection, Linking::Disabled).await;
        let before = world.provider.fetched("/profile");
        authorized(&world, &world.connection, "last", false).await;
        assert_eq!(world.provider.fetched("/profile"), before);
    }

    async fn a_profile_alone_has_to_say_that_the_address_is_verified(server) {
        let world = World::on(&server, endpoints, |_, connection| {
            automatic(connection);
            connection.scope = Some("read".to_owned());
            connection.user_id_expression = Some("{id}".to_owned());
        })
        .await;
        let profile = |id: u64, members: Value| {
            let mut profile = members;
            profile["id"] = id.into();
            world.provider.openid.publish("/profile", 200, &profile);
        };
        profile(1, verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "known").await, Vec::<String>::new());
        profile(2, json!({ "email": "ada@example.com" }));
        assert_eq!(named(&world, &world.connection, "second").await, Vec::<String>::new());
        profile(3, verified("ada@example.com"));
        assert_eq!(named(&world, &world.connection, "third").await, ["known"]);
        profile(2, json!({}));
        assert_eq!(named(&world, &world.connection, "fourth").await, ["second"], "by the account");
    }
}

/// Stores another credential of a user that is linked already.
async fn imported_again(world: &World, user_id: &str, account: &str) {
    let facts = v1::Credential {
        connection: world.connection.id.clone(),
        provider_account_id: Some(account.to_owned()),
        ..fixture::a_credential(user_id, &world.connection.connector)
    };
    steps::credential(&world.client, facts, fixture::oauth2_material("at", "rt")).await;
}

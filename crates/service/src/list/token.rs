//! Page tokens. A token holds the position and its time of issue. Tenant, list, filter, order and scope are bound to it as context
//! and are not in it, so a token fits no other list.

use jackfield_domain::error::Violation;
use jackfield_domain::request::filter::Expr;
use jackfield_domain::request::order::{Order, OrderBy};
use jackfield_domain::request::page::RowKey;
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::Scope;
use jackfield_vault::DataKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The question that a list answers. The page size is not part of it and may change (AIP-158).
pub(super) struct Question<'a> {
    pub(super) tenant: TenantId,
    pub(super) list: &'static str,
    pub(super) filter: Option<&'a Expr>,
    pub(super) order: Order,
    pub(super) scope: &'a Scope,
}

#[derive(Serialize, Deserialize)]
struct Token {
    after: RowKey,
    issued: Timestamp,
}

/// The context of a token as JSON. Tokens survive an upgrade, so neither its names nor its values may change.
#[derive(Serialize)]
struct Context<'a> {
    filter: &'a str,
    order_by: &'static str,
    descending: bool,
    user_id: Option<&'a str>,
    connector: Option<Uuid>,
    connection: Option<Uuid>,
    credential: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    company_id: Option<&'a str>,
}

/// The life of a page token: 72 hours, in microseconds (AIP-158 suggests about three days).
const TOKEN_LIFE_MICROS: i64 = 72 * 3_600 * 1_000_000;

// === impl Question ===

impl Question<'_> {
    /// The token of a position.
    pub(super) fn seal(&self, system: &DataKey, after: &RowKey, now: Timestamp) -> Result<String> {
        let token = serde_json::to_vec(&Token { after: after.clone(), issued: now }).map_err(Error::internal)?;
        system.seal_token(&self.parts(&self.context()?), &token)
    }

    /// The position in a token, if the token was issued for this question and has not expired.
    pub(super) fn open(&self, system: &DataKey, token: &str, now: Timestamp) -> Result<RowKey> {
        let opened = system.open_token(&self.parts(&self.context()?), token);
        let opened = opened.or_else(|| system.open_token(&self.parts(self.earlier_context().as_bytes()), token));
        match opened.and_then(|token| serde_json::from_slice::<Token>(&token).ok()) {
            Some(token) if token.issued.plus_micros(TOKEN_LIFE_MICROS) > now => Ok(token.after),
            _ => Err(Violation::page_token().into()),
        }
    }

    fn parts<'a>(&'a self, context: &'a [u8]) -> [&'a [u8]; 3] {
        [self.tenant.0.as_bytes(), self.list.as_bytes(), context]
    }

    fn context(&self) -> Result<Vec<u8>> {
        let Scope { user_id, connector, connection, credential, application, company_id } = self.scope;
        let context = Context {
            filter: &self.filter_text(),
            order_by: self.order.by.as_str(),
            descending: self.order.descending,
            user_id: user_id.as_ref().map(|user_id| user_id.as_str()),
            connector: connector.map(Uuid::from),
            connection: connection.map(Uuid::from),
            credential: credential.map(Uuid::from),
            application: application.map(Uuid::from),
            company_id: company_id.as_ref().map(|company_id| company_id.as_str()),
        };
        serde_json::to_vec(&context).map_err(Error::internal)
    }

    /// The context as it was before it became JSON. Tokens with it expire 72 hours after the upgrade; then this can be removed.
    fn earlier_context(&self) -> String {
        // Lists with the other parts of a scope have no tokens of this form.
        let Scope { user_id, connector, connection, credential, application: _, company_id: _ } = self.scope;
        let by = match self.order.by {
            OrderBy::CreateTime => "CreateTime",
            OrderBy::Id => "Id",
            OrderBy::Name => "Name",
            OrderBy::UserId => "UserId",
        };
        let id = |name: &str, id: Option<Uuid>| match id {
            Some(id) => format!("Some({name}({id}))"),
            None => "None".to_owned(),
        };
        let user_id =
            user_id.as_ref().map_or("None".to_owned(), |user_id| format!("Some(UserId({:?}))", user_id.as_str()));
        let connector = id("ConnectorId", connector.map(Uuid::from));
        let connection = id("ConnectionId", connection.map(Uuid::from));
        let credential = id("CredentialId", credential.map(Uuid::from));
        let (filter, descending) = (self.filter_text(), self.order.descending);
        format!("{filter:?} {by} {descending} {user_id} {connector} {connection} {credential}")
    }

    fn filter_text(&self) -> String {
        self.filter.map(ToString::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::request::filter;
    use jackfield_domain::value::text::UserId;
    use jackfield_domain::{ConnectionId, ConnectorId, CredentialId, credential};
    use jackfield_vault::{Keyring, Vault};

    use super::*;

    fn contexts(filter: &str, order: Order, scope: &Scope) -> (String, String) {
        let filter = filter::parse(filter, &credential::SCHEMA).unwrap();
        let tenant = TenantId(Uuid::from_u128(1));
        let question = Question { tenant, list: "credentials", filter: filter.as_ref(), order, scope };
        (String::from_utf8(question.context().unwrap()).unwrap(), question.earlier_context())
    }

    #[test]
    fn contexts_stay_what_they_are() {
        let by_id = Order { by: OrderBy::Id, descending: false };
        let (context, earlier) = contexts("", by_id, &Scope::default());
        let expected = r#"{"filter":"","order_by":"id","descending":false,"user_id":null,"connector":null,"connection":null,"credential":null}"#;
        assert_eq!(context, expected);
        assert_eq!(earlier, r#""" Id false None None None None"#);

        let scope = Scope {
            user_id: Some(UserId::parse("user_id", "ada \"l\"").unwrap()),
            connector: Some(ConnectorId(Uuid::from_u128(2))),
            connection: Some(ConnectionId(Uuid::from_u128(3))),
            credential: Some(CredentialId(Uuid::from_u128(4))),
            ..Scope::default()
        };
        let latest = Order { by: OrderBy::CreateTime, descending: true };
        let (context, earlier) = contexts(r#"external_id = "a""#, latest, &scope);
        let expected = concat!(
            r#"{"filter":"external_id = \"a\"","order_by":"create_time","descending":true,"user_id":"ada \"l\"","#,
            r#""connector":"00000000-0000-0000-0000-000000000002","connection":"00000000-0000-0000-0000-000000000003","#,
            r#""credential":"00000000-0000-0000-0000-000000000004"}"#
        );
        assert_eq!(context, expected);
        let expected = concat!(
            r#""external_id = \"a\"" CreateTime true Some(UserId("ada \"l\"")) "#,
            "Some(ConnectorId(00000000-0000-0000-0000-000000000002)) ",
            "Some(ConnectionId(00000000-0000-0000-0000-000000000003)) ",
            "Some(CredentialId(00000000-0000-0000-0000-000000000004))"
        );
        assert_eq!(earlier, expected);
    }

    #[tokio::test]
    async fn tokens_fit_their_question_only() {
        const KEYRING: &str = r#"
            active = "kek-1"

            [[key]]
            id = "kek-1"
            state = "active"
            created = 2026-01-02T03:04:05Z
            secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        "#;
        let vault = Vault::new(Keyring::parse(KEYRING).unwrap());
        let (system, _) = vault.data_key_create(TenantId::SYSTEM).await.unwrap();
        let scope = Scope::default();
        let question = |list| Question {
            tenant: TenantId(Uuid::from_u128(1)),
            list,
            filter: None,
            order: Order { by: OrderBy::Id, descending: false },
            scope: &scope,
        };
        let (asked, other) = (question("keys"), question("connectors"));
        let (after, issued) = (RowKey { value: None, id: Uuid::from_u128(5) }, Timestamp(1_000_000));
        let expired = issued.plus_micros(TOKEN_LIFE_MICROS);

        let token = asked.seal(&system, &after, issued).unwrap();
        let earlier = serde_json::to_vec(&Token { after: after.clone(), issued }).unwrap();
        let earlier = system.seal_token(&asked.parts(asked.earlier_context().as_bytes()), &earlier).unwrap();
        for token in [token, earlier] {
            assert_eq!(asked.open(&system, &token, issued).unwrap(), after);
            assert!(asked.open(&system, &token, expired).is_err());
            assert!(other.open(&system, &token, issued).is_err());
        }
    }
}

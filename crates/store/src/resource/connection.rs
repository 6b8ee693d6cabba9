//! Connections as rows.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::{self, Connection};
use jackfield_domain::credential::Credential;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::resource::Dependents;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::{CountryCode, Slug};
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{ConnectionId, Resource, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use super::cascade::CascadeIds;
use super::credential::configurations_of;
use crate::crud;
use crate::entity::connection::{ActiveModel, Column, Entity};
use crate::entity::credential;
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The number of resources that depend on a connection.
    pub async fn connection_dependents(&self, tenant: TenantId, id: ConnectionId) -> Result<Dependents> {
        let credentials = Condition::all().add(credential::Column::ConnectionId.eq(id.0));
        let configurations = configurations_of(tenant, credentials.clone());
        Ok(Dependents {
            credentials: crud::count::<Credential>(&self.conn, tenant, credentials).await?,
            configurations: crud::count::<Configuration>(&self.conn, tenant, configurations).await?,
            routing_rules: self.routing_rules_of_connection(tenant, id).await?,
            ..Dependents::default()
        })
    }
}

impl Writer {
    /// Deletes a connection and the credentials that came from it.
    pub async fn connection_delete(&self, tenant: TenantId, id: ConnectionId, now: Timestamp) -> Result<CascadeIds> {
        let routing_rules = self.routing_rules_remove(tenant, None, &[id], now).await?;
        let deleted = self.credentials_delete(tenant, credential::Column::ConnectionId.eq(id.0)).await?;
        self.connections_delete(tenant, Column::Id.eq(id.0)).await?;
        Ok(CascadeIds { routing_rules, ..deleted })
    }

    /// Deletes the connections that fit a condition, with secrets and labels. Nothing may depend on them any more.
    pub(super) async fn connections_delete(&self, tenant: TenantId, condition: Expr) -> Result<Vec<ConnectionId>> {
        let ids = crud::ids_for_update::<Connection>(&self.conn, tenant, condition.clone()).await?;
        self.authorizations_delete_of(tenant, &ids).await?;
        self.owned_delete(tenant, Resource::Connection, &ids).await?;
        self.delete_rows::<Connection>(tenant, &ids, condition).await?;
        Ok(ids.into_iter().map(ConnectionId).collect())
    }
}

impl Stored for Connection {
    type Id = ConnectionId;
    type Table = Entity;

    common_parts!(TenantId);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);
    const EXTERNAL_ID: Option<Column> = Some(Column::ExternalId);

    fn columns(&self) -> ActiveModel {
        let settings = &self.settings;
        let url = |url: &Option<HttpUrl>| url.as_ref().map(HttpUrl::as_str).unwrap_or_default().to_owned();
        ActiveModel {
            name_key: Set(settings.name.key()),
            external_id: Set(settings.external_id.as_ref().map(|id| id.as_str().to_owned())),
            connector_id: Set(self.connector.0),
            kind: Set(settings.kind.as_str().to_owned()),
            active: Set(settings.active),
            client_id: Set(settings.client_id.clone()),
            issuer_url: Set(settings.issuer_url.clone()),
            authentication_url: Set(url(&settings.authentication_url)),
            token_url: Set(url(&settings.token_url)),
            provider_tenant_id: Set(settings.provider_tenant_id.clone()),
            client_key: Set(self.client_key.map(Uuid::from)),
            ..ActiveModel::default()
        }
    }

    /// All text fields except for the certificate in PEM, as the filter of Authress searches them.
    fn texts(&self) -> Vec<&str> {
        let settings = &self.settings;
        let mut texts = vec![
            settings.name.as_str(),
            settings.kind.as_str(),
            &settings.issuer_url,
            &settings.client_id,
            &settings.provider_tenant_id,
            &settings.developer_account_id,
            &settings.user_id_expression,
            &settings.scope,
        ];
        texts.extend(settings.external_id.as_ref().map(Slug::as_str));
        texts.extend(settings.user_data_location.as_ref().map(CountryCode::as_str));
        texts.extend(settings.redirect_uris.iter().chain(&settings.return_uris).map(RedirectUri::as_str));
        texts.extend(self.client_secrets.iter().map(|secret| secret.secret_id.as_str()));
        let urls = [
            &settings.authentication_url,
            &settings.token_url,
            &settings.oidc_user_endpoint_url,
            &settings.revocation_url,
            &settings.jwks_url,
            &settings.device_authorization_url,
        ];
        texts.extend(urls.into_iter().flatten().map(HttpUrl::as_str));
        texts.extend(settings.tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        let (token, refresh) = (settings.token_parameters.iter(), settings.refresh_parameters.iter());
        let parameters = settings.parameters.iter().chain(token).chain(refresh);
        texts.extend(parameters.flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.settings.tags)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let settings = &self.settings;
        let mut texts = vec![
            ("client_id", settings.client_id.as_str()),
            ("issuer_url", &settings.issuer_url),
            ("provider_tenant_id", &settings.provider_tenant_id),
        ];
        texts.extend(settings.external_id.as_ref().map(|id| ("external_id", id.as_str())));
        texts.extend(settings.authentication_url.as_ref().map(|url| ("authentication_url", url.as_str())));
        texts.extend(settings.token_url.as_ref().map(|url| ("token_url", url.as_str())));
        texts
    }

    fn name(&self) -> Option<&str> {
        Some(self.settings.name.as_str())
    }

    fn external_id(&self) -> Option<&str> {
        self.settings.external_id.as_ref().map(Slug::as_str)
    }
}

impl Listed for Connection {
    const SCHEMA: &'static Schema = &connection::SCHEMA;
    fn scope(scope: &Scope) -> Condition {
        Condition::all().add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "connector" => FieldSource::column(Column::ConnectorId),
            "type" => FieldSource::column(Column::Kind),
            "active" => FieldSource::column(Column::Active),
            "client_id" => FieldSource::column(Column::ClientId),
            "issuer_url" => FieldSource::column(Column::IssuerUrl),
            "authentication_url" => FieldSource::column(Column::AuthenticationUrl),
            "token_url" => FieldSource::column(Column::TokenUrl),
            "provider_tenant_id" => FieldSource::column(Column::ProviderTenantId),
            "tags" => FieldSource::labels(Resource::Connection, Column::Id),
            _ => return None,
        })
    }
}

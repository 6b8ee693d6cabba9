//! Connectors as rows.

use jackfield_domain::application::Application;
use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::{self, Connector};
use jackfield_domain::credential::Credential;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::resource::Dependents;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, ConnectorId, Resource, Result, TenantId, Timestamp, UserConnectorId};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use super::cascade::CascadeIds;
use crate::crud::{self, count};
use crate::entity::connector::{ActiveModel, Column, Entity};
use crate::entity::{application, configuration, connection, credential, user_connector};
use crate::list::Listed;
use crate::list::field::FieldSource;
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The number of resources that depend on a connector.
    pub async fn connector_dependents(&self, tenant: TenantId, id: ConnectorId) -> Result<Dependents> {
        let conn = &self.conn;
        Ok(Dependents {
            applications: count::<Application>(conn, tenant, application::Column::ConnectorId.eq(id.0)).await?,
            connections: count::<Connection>(conn, tenant, connection::Column::ConnectorId.eq(id.0)).await?,
            user_connectors: count::<UserConnector>(conn, tenant, user_connector::Column::ConnectorId.eq(id.0)).await?,
            credentials: count::<Credential>(conn, tenant, credential::Column::ConnectorId.eq(id.0)).await?,
            configurations: count::<Configuration>(conn, tenant, configuration::Column::ConnectorId.eq(id.0)).await?,
            routing_rules: self.routing_rules_of_connector(tenant, id).await?,
            ..Dependents::default()
        })
    }
}

impl Writer {
    /// Deletes a connector, which is locked, and everything that depends on it, with secrets and labels.
    pub async fn connector_delete(&self, tenant: TenantId, id: ConnectorId, now: Timestamp) -> Result<CascadeIds> {
        // All transactions lock from the top down.
        let connections = connection::Column::ConnectorId.eq(id.0);
        crud::ids_for_update::<Connection>(&self.conn, tenant, connections.clone()).await?;
        let links = user_connector::Column::ConnectorId.eq(id.0);
        let link_ids = crud::ids_for_update::<UserConnector>(&self.conn, tenant, links.clone()).await?;
        let deleted = self.credentials_delete(tenant, credential::Column::ConnectorId.eq(id.0)).await?;
        let sources = self.credential_sources_lock_of(tenant, id).await?;
        let connection_ids = crud::ids_for_update::<Connection>(&self.conn, tenant, connections.clone()).await?;
        let connection_ids: Vec<_> = connection_ids.into_iter().map(ConnectionId).collect();
        let routing_rules = self.routing_rules_remove(tenant, Some(id), &connection_ids, now).await?;
        self.user_pins_delete(tenant, id).await?;
        let connections = self.connections_delete(tenant, connections).await?;
        self.delete_rows::<UserConnector>(tenant, &link_ids, links).await?;
        let credential_sources = self.credential_sources_release(tenant, &sources).await?;
        self.connector_events_delete(tenant, id).await?;
        self.owned_delete(tenant, Resource::Connector, &[id.0]).await?;
        self.delete_row::<Connector>(tenant, id.0).await?;
        let user_connectors = link_ids.into_iter().map(UserConnectorId).collect();
        Ok(CascadeIds { connections, user_connectors, routing_rules, credential_sources, ..deleted })
    }
}

impl Stored for Connector {
    type Id = ConnectorId;
    type Table = Entity;

    common_parts!(TenantId);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            name_key: Set(self.name.key()),
            kind: Set(self.kind.as_str().to_owned()),
            enabled: Set(self.enabled),
            debug: Set(self.debug),
            description: Set(self.description.clone()),
            url: Set(self.url().map(HttpUrl::as_str).unwrap_or_default().to_owned()),
            client_identity_key: Set(self.client_identity_key.map(Uuid::from)),
            trust_bundle_key: Set(self.trust_bundle_key.map(Uuid::from)),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), &self.description, self.kind.as_str()];
        texts.extend(self.kind.texts());
        texts.extend(self.headers.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        texts.extend(self.secret_header_names.iter().map(String::as_str));
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts = vec![("description", self.description.as_str())];
        texts.extend(self.url().map(|url| ("url", url.as_str())));
        texts
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }
}

impl Listed for Connector {
    const SCHEMA: &'static Schema = &connector::SCHEMA;
    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "description" => FieldSource::column(Column::Description),
            "kind" => FieldSource::column(Column::Kind),
            "enabled" => FieldSource::column(Column::Enabled),
            "debug" => FieldSource::column(Column::Debug),
            "url" => FieldSource::column(Column::Url),
            "labels" => FieldSource::labels(Resource::Connector, Column::Id),
            "client_identity_key" => FieldSource::column(Column::ClientIdentityKey),
            "trust_bundle_key" => FieldSource::column(Column::TrustBundleKey),
            _ => return None,
        })
    }
}

//! ConfigurationService.

use std::collections::BTreeMap;

use jackfield_api::v1 as pb;
use jackfield_api::v1::configuration_service_server::ConfigurationService;
use jackfield_domain::configuration::{Configuration, ConfigurationPatch, WorkflowSettings, WorkflowsPatch};
use jackfield_domain::request::map_patch::Entries;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::text::{ExternalId, bounded_text};
use jackfield_domain::{ConfigurationId, Violation, Violations};
use jackfield_service::{ConfigurationRef, DeleteOptions, ListScope, ListedPage};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use super::api::{Api, authorize_with_metadata, respond};
use super::credentials::credential_from_metadata;
use super::fields::Fields;
use super::page_stream::PageStream;
use super::parse;
use super::render;
use super::update;

const MAX_WORKFLOW_ID: usize = 128;

/// Metadata that may name the configuration (the header X-Paragon-Configuration-Id of the model).
const CONFIGURATION_METADATA: &str = "x-jackfield-configuration";

#[async_trait]
impl ConfigurationService for Api {
    type ListConfigurationsStream = PageStream<Configuration, pb::ListConfigurationsResponse>;

    async fn create_configuration(
        &self,
        request: Request<pb::CreateConfigurationRequest>,
    ) -> Result<Response<pb::CreateConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            if let Some(configuration) = &mut request.configuration {
                let credential = &mut configuration.credential;
                credential_from_metadata(&mut violations, &metadata, "configuration.credential", credential);
            }
            let options = parse::options(&mut violations, &mut request);
            let id = violations.check(parse::optional_id("id", &request.id)).flatten().map(ConfigurationId);
            let configuration = parse::required(&mut violations, "configuration", request.configuration);
            let patch = configuration.map(|it| patch(&mut Fields::of_new("configuration", &mut violations), it));
            let patch = violations.into_result(patch)?;
            let created = self.services.configuration_create(&caller, &options, id, patch).await?;
            Ok(pb::CreateConfigurationResponse { configuration: Some(to_message(created)) })
        };
        respond(call.await)
    }

    async fn get_configuration(
        &self,
        request: Request<pb::GetConfigurationRequest>,
    ) -> Result<Response<pb::GetConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            named_by(&mut violations, &metadata, &mut request.reference, &mut request.credential);
            let configuration = external(&mut violations, "reference", &request.reference);
            let credential = external(&mut violations, "credential", &request.credential);
            let (configuration, credential) = violations.into_result(configuration.zip(credential))?;
            let reference = ConfigurationRef { configuration, credential };
            let found = self.services.configuration_get(&caller, &reference).await?;
            Ok(pb::GetConfigurationResponse { configuration: Some(to_message(found)) })
        };
        respond(call.await)
    }

    async fn list_configurations(
        &self,
        request: Request<pb::ListConfigurationsRequest>,
    ) -> Result<Response<Self::ListConfigurationsStream>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            credential_from_metadata(&mut violations, &metadata, "credential", &mut request.credential);
            let list = parse::list(&mut violations, &request);
            let user_id = parse::optional_user(&mut violations, &request.user_id);
            let connector =
                parse::optional_reference(&mut violations, "connector", &request.connector, ReferenceForms::ID_NAME);
            let credential = external(&mut violations, "credential", &request.credential);
            let parsed = list.zip(user_id).zip(connector.zip(credential));
            let ((list, user_id), (connector, credential)) = violations.into_result(parsed)?;
            let scope = ListScope { user_id, connector, credential, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        respond(call.await)
    }

    async fn update_configuration(
        &self,
        request: Request<pb::UpdateConfigurationRequest>,
    ) -> Result<Response<pb::UpdateConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            named_by(&mut violations, &metadata, &mut request.reference, &mut request.credential);
            let options = parse::options(&mut violations, &mut request);
            let update = update::parse(&mut violations, &mut request, &[], patch);
            let configuration = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential = external(&mut violations, "credential", &request.credential);
            let parsed = configuration.zip(credential).zip(update);
            let ((configuration, credential), (expected, patch)) = violations.into_result(parsed)?;
            let reference = ConfigurationRef { configuration: Some(configuration), credential };
            let updated = self.services.configuration_update(&caller, &options, &reference, &expected, patch).await?;
            Ok(pb::UpdateConfigurationResponse { configuration: Some(to_message(updated)) })
        };
        respond(call.await)
    }

    async fn destroy_configuration(
        &self,
        request: Request<pb::DestroyConfigurationRequest>,
    ) -> Result<Response<pb::DestroyConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = authorize_with_metadata(request)?;
            let mut violations = Violations::default();
            named_by(&mut violations, &metadata, &mut request.reference, &mut request.credential);
            let options = parse::options(&mut violations, &mut request);
            let configuration = parse::reference(&mut violations, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential =
                violations.check(Ref::parse("credential", &request.credential, ReferenceForms::ID_EXTERNAL));
            let (configuration, credential) = violations.into_result(configuration.zip(credential))?;
            let reference = ConfigurationRef { configuration: Some(configuration), credential: Some(credential) };
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: false };
            let destroyed = self.services.configuration_destroy(&caller, &options, &reference, &deletion).await?;
            Ok(pb::DestroyConfigurationResponse { destroyed: destroyed.deleted })
        };
        respond(call.await)
    }
}

fn named_by(violations: &mut Violations, metadata: &MetadataMap, configuration: &mut String, credential: &mut String) {
    parse::from_metadata(violations, metadata, CONFIGURATION_METADATA, "reference", configuration);
    credential_from_metadata(violations, metadata, "credential", credential);
}

/// A reference that may be left out, by id or external id.
fn external(violations: &mut Violations, field: &str, text: &str) -> Option<Option<Ref>> {
    parse::optional_reference(violations, field, text, ReferenceForms::ID_EXTERNAL)
}

fn patch(fields: &mut Fields<'_>, configuration: pb::Configuration) -> ConfigurationPatch {
    let pb::Configuration {
        credential,
        external_id,
        shared_settings,
        workflow_settings,
        meta,
        id: _,
        is_default: _,
        user_id: _,
        connector: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = configuration;
    ConfigurationPatch {
        credential: fields.parent("credential", &credential, |field, credential| {
            Ref::parse(field, credential, ReferenceForms::ID_EXTERNAL)
        }),
        external_id: fields.optional("external_id", external_id, ExternalId::parse),
        shared_settings: fields.json("shared_settings", shared_settings),
        settings_meta: fields.json("meta", meta),
        workflow_settings: workflows(fields, workflow_settings),
    }
}

fn workflows(fields: &mut Fields<'_>, given: BTreeMap<String, pb::WorkflowSettings>) -> WorkflowsPatch {
    const PATH: &str = "workflow_settings";
    if fields.mask().covers(PATH, !given.is_empty()) {
        return WorkflowsPatch::Replace(parse_workflows(fields, given));
    }
    match Entries::named(PATH, given, fields.mask(), |one, other| one == other) {
        Some(Entries { set, gone }) => WorkflowsPatch::Entries(Entries { set: parse_workflows(fields, set), gone }),
        None => WorkflowsPatch::Keep,
    }
}

fn parse_workflows(
    fields: &mut Fields<'_>,
    workflows: BTreeMap<String, pb::WorkflowSettings>,
) -> BTreeMap<String, WorkflowSettings> {
    let field = fields.name("workflow_settings");
    let mut parsed = BTreeMap::new();
    for (workflow, pb::WorkflowSettings { enabled, settings }) in workflows {
        if bounded_text(&field, &workflow, MAX_WORKFLOW_ID, false).is_err() {
            let description = format!("has a workflow id that is not 1 to {MAX_WORKFLOW_ID} printable characters");
            fields.violations.push(Violation::field(&field, description));
            continue;
        }
        let json = parse::json(&format!("{field}.`{workflow}`.settings"), settings);
        if let Some(json) = fields.violations.check(json) {
            parsed.insert(workflow, WorkflowSettings { enabled, settings: json });
        }
    }
    parsed
}

fn to_page(page: ListedPage<Configuration>) -> pb::ListConfigurationsResponse {
    pb::ListConfigurationsResponse {
        configurations: page.items.into_iter().map(to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_message(configuration: Configuration) -> pb::Configuration {
    let Configuration {
        id,
        credential,
        external_id,
        shared_settings,
        workflow_settings,
        settings_meta,
        is_default,
        user_id,
        connector,
        meta,
    } = configuration;
    let workflows = workflow_settings.into_iter().map(|(workflow, WorkflowSettings { enabled, settings })| {
        (workflow, pb::WorkflowSettings { enabled, settings: render::json(settings) })
    });
    pb::Configuration {
        id: id.to_string(),
        credential: credential.to_string(),
        external_id: external_id.map(String::from),
        shared_settings: render::json(shared_settings),
        workflow_settings: workflows.collect(),
        meta: render::json(settings_meta),
        is_default,
        user_id: user_id.into(),
        connector: connector.to_string(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

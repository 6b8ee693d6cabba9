//! ConfigurationService.

use std::collections::BTreeMap;

use jackfield_api::v1 as pb;
use jackfield_api::v1::configuration_service_server::ConfigurationService;
use jackfield_domain::configuration::{self, Configuration, ConfigurationPatch, WorkflowSettings};
use jackfield_domain::request::map_patch::Entries;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::text::{ExternalId, bounded_text};
use jackfield_domain::{ConfigurationId, Violation, Violations};
use jackfield_service::{ConfigurationRef, DeleteOptions, ListScope, ListedPage};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use super::credentials::CREDENTIAL_METADATA;
use super::parse::{self, ListFields};
use super::stream::PageStream;
use super::update::{self, Identity};
use super::{Api, enter_with_metadata, render, reply};

/// The paths that an update mask may name.
const PATHS: &[&str] =
    &["credential", "external_id", "shared_settings", "workflow_settings", "workflow_settings.*", "meta"];

/// The paths that may be named without effect: what the server keeps.
const OUTPUT_ONLY: &[&str] = &["id", "is_default", "user_id", "connector", "create_time", "update_time", "etag"];

const MAX_WORKFLOW_ID: usize = 128;

/// Metadata that may name the configuration and its credential (the headers X-Paragon-Configuration-Id and
/// X-Paragon-Credential of the seed).
const CONFIGURATION_METADATA: &str = "x-jackfield-configuration";

#[async_trait]
impl ConfigurationService for Api {
    type ListConfigurationsStream = PageStream<Configuration, pb::ListConfigurationsResponse>;

    async fn create_configuration(
        &self,
        request: Request<pb::CreateConfigurationRequest>,
    ) -> Result<Response<pb::CreateConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            if let Some(configuration) = &mut request.configuration {
                let (key, field) = (CREDENTIAL_METADATA, "configuration.credential");
                parse::from_metadata(&mut wrong, &metadata, key, field, &mut configuration.credential);
            }
            let (request_id, only) = (&request.request_id, request.validate_only);
            let mutation = parse::mutation(&mut wrong, "CreateConfiguration", &request, request_id, only);
            let id = wrong.check(parse::optional_id("id", &request.id)).flatten().map(ConfigurationId);
            let configuration = parse::required(&mut wrong, "configuration", request.configuration);
            let parsed = configuration.map(|configuration| {
                let field = "configuration.credential";
                let credential = wrong.check(Ref::parse(field, &configuration.credential, ReferenceForms::ID_EXTERNAL));
                (credential, patch(&mut wrong, configuration, &Mask::All))
            });
            let parsed = parsed.and_then(|(credential, patch)| Some((credential?, patch)));
            let (credential, patch) = parse::done(wrong, parsed)?;
            let created = self.services.configuration_create(&caller, &mutation, id, &credential, patch).await?;
            Ok(pb::CreateConfigurationResponse { configuration: Some(to_message(created)) })
        };
        reply(call.await)
    }

    async fn get_configuration(
        &self,
        request: Request<pb::GetConfigurationRequest>,
    ) -> Result<Response<pb::GetConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference, &mut request.credential);
            let configuration =
                wrong.check(Ref::parse_optional("reference", &request.reference, ReferenceForms::ID_EXTERNAL));
            let credential =
                wrong.check(Ref::parse_optional("credential", &request.credential, ReferenceForms::ID_EXTERNAL));
            let (configuration, credential) = parse::done(wrong, configuration.zip(credential))?;
            let reference = ConfigurationRef { configuration, credential };
            let found = self.services.configuration_get(&caller, &reference).await?;
            Ok(pb::GetConfigurationResponse { configuration: Some(to_message(found)) })
        };
        reply(call.await)
    }

    async fn list_configurations(
        &self,
        request: Request<pb::ListConfigurationsRequest>,
    ) -> Result<Response<Self::ListConfigurationsStream>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            parse::from_metadata(&mut wrong, &metadata, CREDENTIAL_METADATA, "credential", &mut request.credential);
            let pb::ListConfigurationsRequest {
                page_size,
                page_token,
                limit,
                filter,
                order_by,
                user_id,
                connector,
                credential,
            } = &request;
            let fields = ListFields { page_size: *page_size, page_token, limit: *limit, filter, order_by };
            let list = parse::list(&mut wrong, &fields, &configuration::SCHEMA);
            let user_id = parse::optional_user(&mut wrong, user_id);
            let connector = wrong.check(Ref::parse_optional("connector", connector, ReferenceForms::ID_NAME));
            let credential = wrong.check(Ref::parse_optional("credential", credential, ReferenceForms::ID_EXTERNAL));
            let parsed = list.zip(user_id).zip(connector.zip(credential));
            let ((list, user_id), (connector, credential)) = parse::done(wrong, parsed)?;
            let scope = ListScope { user_id, connector, credential, ..ListScope::default() };
            let pager = self.services.list(&caller, list, scope).await?;
            self.streams.pages(pager, to_page)
        };
        reply(call.await)
    }

    async fn update_configuration(
        &self,
        request: Request<pb::UpdateConfigurationRequest>,
    ) -> Result<Response<pb::UpdateConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference, &mut request.credential);
            let (request_id, only) = (&request.request_id, request.validate_only);
            let mutation = parse::mutation(&mut wrong, "UpdateConfiguration", &request, request_id, only);
            let mask = parse::mask(&mut wrong, request.update_mask.as_ref(), PATHS, OUTPUT_ONLY);
            let configuration = parse::required(&mut wrong, "configuration", request.configuration);
            let inside = configuration.as_ref();
            let inside = inside.map(|it| Identity { resource: "configuration", id: &it.id, etag: &it.etag });
            let expected = update::expected(&mut wrong, &request.etag, inside);
            let patch = configuration.zip(mask).map(|(configuration, mask)| {
                let mut credential = None;
                // What it leaves empty stays, whatever the mask.
                if !configuration.credential.is_empty() && mask.covers("credential", true) {
                    let (field, given) = ("configuration.credential", &configuration.credential);
                    credential = wrong.check(Ref::parse(field, given, ReferenceForms::ID_EXTERNAL));
                }
                let patch = ConfigurationPatch { credential, ..patch(&mut wrong, configuration, &mask) };
                update::require_change(&mut wrong, &mask, "configuration", patch.is_empty());
                patch
            });
            let configuration = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential =
                wrong.check(Ref::parse_optional("credential", &request.credential, ReferenceForms::ID_EXTERNAL));
            let parsed = configuration.zip(credential).zip(patch);
            let ((configuration, credential), patch) = parse::done(wrong, parsed)?;
            let reference = ConfigurationRef { configuration: Some(configuration), credential };
            let updated = self.services.configuration_update(&caller, &mutation, &reference, &expected, patch).await?;
            Ok(pb::UpdateConfigurationResponse { configuration: Some(to_message(updated)) })
        };
        reply(call.await)
    }

    async fn destroy_configuration(
        &self,
        request: Request<pb::DestroyConfigurationRequest>,
    ) -> Result<Response<pb::DestroyConfigurationResponse>, Status> {
        let call = async {
            let (caller, metadata, mut request) = enter_with_metadata(request)?;
            let mut wrong = Violations::default();
            named_by(&mut wrong, &metadata, &mut request.reference, &mut request.credential);
            let (request_id, only) = (&request.request_id, request.validate_only);
            let mutation = parse::mutation(&mut wrong, "DestroyConfiguration", &request, request_id, only);
            let configuration = parse::reference(&mut wrong, &request.reference, ReferenceForms::ID_EXTERNAL);
            let credential = wrong.check(Ref::parse("credential", &request.credential, ReferenceForms::ID_EXTERNAL));
            let (configuration, credential) = parse::done(wrong, configuration.zip(credential))?;
            let reference = ConfigurationRef { configuration: Some(configuration), credential: Some(credential) };
            let deletion = DeleteOptions { etag: request.etag, allow_missing: request.allow_missing, cascade: false };
            let destroyed = self.services.configuration_destroy(&caller, &mutation, &reference, &deletion).await?;
            Ok(pb::DestroyConfigurationResponse { destroyed: destroyed.deleted })
        };
        reply(call.await)
    }
}

fn named_by(wrong: &mut Violations, metadata: &MetadataMap, configuration: &mut String, credential: &mut String) {
    parse::from_metadata(wrong, metadata, CONFIGURATION_METADATA, "reference", configuration);
    parse::from_metadata(wrong, metadata, CREDENTIAL_METADATA, "credential", credential);
}

fn patch(wrong: &mut Violations, configuration: pb::Configuration, mask: &Mask) -> ConfigurationPatch {
    let pb::Configuration { external_id, shared_settings, workflow_settings, meta, .. } = configuration;
    let mut patch = ConfigurationPatch::default();
    if mask.covers("external_id", external_id.is_some()) {
        patch.external_id = match external_id.as_deref().and_then(parse::non_empty) {
            Some(text) => wrong.check(ExternalId::parse("configuration.external_id", text)).map(Some),
            None => Some(None),
        };
    }
    if mask.covers("shared_settings", shared_settings.is_some()) {
        patch.shared_settings = wrong.check(parse::json("configuration.shared_settings", shared_settings));
    }
    if mask.covers("meta", meta.is_some()) {
        patch.settings_meta = wrong.check(parse::json("configuration.meta", meta));
    }
    if mask.covers("workflow_settings", !workflow_settings.is_empty()) {
        patch.workflow_settings = Some(parse_workflows(wrong, workflow_settings));
    } else if let Some(named) = Entries::named("workflow_settings", workflow_settings, mask, |one, other| one == other)
    {
        patch.workflows = named.gone.into_iter().map(|workflow| (workflow, None)).collect();
        let set = parse_workflows(wrong, named.set).into_iter();
        patch.workflows.extend(set.map(|(workflow, settings)| (workflow, Some(settings))));
    }
    patch
}

fn parse_workflows(
    wrong: &mut Violations,
    workflows: BTreeMap<String, pb::WorkflowSettings>,
) -> BTreeMap<String, WorkflowSettings> {
    let field = "configuration.workflow_settings";
    let mut parsed = BTreeMap::new();
    for (workflow, settings) in workflows {
        if bounded_text(field, &workflow, MAX_WORKFLOW_ID, false).is_err() {
            let description = format!("has a workflow id that is not 1 to {MAX_WORKFLOW_ID} printable characters");
            wrong.push(Violation::field(field, description));
            continue;
        }
        let place = format!("{field}.`{workflow}`.settings");
        if let Some(json) = wrong.check(parse::json(&place, settings.settings)) {
            parsed.insert(workflow, WorkflowSettings { enabled: settings.enabled, settings: json });
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

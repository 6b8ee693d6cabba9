//! Issued tokens as messages.

use jackfield_api::v1 as pb;
use jackfield_domain::credential::IssuedToken;

use crate::grpc::render;

pub(in crate::grpc) fn issued_to_message(issued: &IssuedToken) -> pb::IssueAccessTokenResponse {
    let IssuedToken {
        credential,
        material_version,
        token,
        token_type,
        expire_time,
        scopes,
        missing_scopes,
        next_refresh_time,
        fields,
    } = issued;
    pb::IssueAccessTokenResponse {
        access_token: token.expose().to_owned(),
        token_type: token_type.clone(),
        expire_time: expire_time.map(render::timestamp),
        scopes: scopes.clone(),
        missing_scopes: missing_scopes.clone(),
        credential: credential.to_string(),
        credential_version: *material_version,
        next_refresh_time: next_refresh_time.map(render::timestamp),
        fields: fields.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
    }
}

//! The user whom a source is for, or the whole tenant. Each call says which of them it means.

use super::*;

const NEITHER: &str = "is required, unless tenant_wide is true: the source is then that of the tenant";
const BOTH: &str = "must not be given together with user_id";
const BLANK: &str = "must not begin or end with a blank";

fn refused_for<T: std::fmt::Debug>(result: Result<Response<T>, Status>, field: &str, rule: &str) {
    let refused = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
    assert_eq!((refused.fields(), refused.description(field)), (vec![field], rule));
}

on_both! {
    async fn a_source_says_whether_it_is_for_a_user_or_for_the_tenant(server) {
        let client = server.client("alpha");
        let of_tenant = set(&client, fixture::a_stream_source("")).await;
        assert_eq!((of_tenant.user_id.as_deref(), of_tenant.tenant_wide), (None, true));
        let of_ada = set(&client, fixture::a_stream_source("ada")).await;
        assert_eq!((of_ada.user_id.as_deref(), of_ada.tenant_wide), (Some("ada"), false));
        assert_eq!(get(&client, "").await.unwrap().into_inner().source, Some(of_tenant));
        assert_eq!(get(&client, "ada").await.unwrap().into_inner().source, Some(of_ada));
        let delete = v1::DeleteCredentialSourceRequest { tenant_wide: true, ..Default::default() };
        assert!(client.user_connectors().delete_credential_source(delete).await.unwrap().into_inner().deleted);
        expect_status(get(&client, "").await, Code::NotFound, "CREDENTIAL_SOURCE_NOT_FOUND");
        assert!(get(&client, "ada").await.is_ok(), "that of a user stays");
    }

    /// A caller that forgets the user must not change what all users get.
    async fn a_call_that_says_neither_or_both_is_refused(server) {
        let client = server.client("alpha");
        let of_tenant = set(&client, fixture::a_stream_source("")).await;
        let before = [of_tenant, set(&client, fixture::a_stream_source("ada")).await];
        for (user_id, tenant_wide, field, rule) in [
            (None, false, "user_id", NEITHER),
            (Some(""), false, "user_id", NEITHER),
            (Some("ada"), true, "tenant_wide", BOTH),
            (Some(" ada"), false, "user_id", BLANK),
        ] {
            let mut users = client.user_connectors();
            let source = v1::CredentialSource {
                user_id: user_id.map(str::to_owned),
                tenant_wide,
                ..fixture::a_stream_source("")
            };
            let set = v1::SetCredentialSourceRequest { source: Some(source), ..Default::default() };
            refused_for(users.set_credential_source(set).await, &format!("source.{field}"), rule);
            let user_id = user_id.unwrap_or_default().to_owned();
            let get = v1::GetCredentialSourceRequest { user_id: user_id.clone(), tenant_wide };
            refused_for(users.get_credential_source(get).await, field, rule);
            let delete = v1::DeleteCredentialSourceRequest {
                user_id,
                tenant_wide,
                allow_missing: true,
                ..Default::default()
            };
            refused_for(users.delete_credential_source(delete).await, field, rule);
        }
        for source in before {
            let user_id = source.user_id.clone().unwrap_or_default();
            assert_eq!(get(&client, &user_id).await.unwrap().into_inner().source, Some(source));
        }
    }
}

//! Keys from before `m0007_key_material`.

use jackfield_api::v1;
use jackfield_testkit::{Backend, collect, on_both};

use super::generate::{generate, request};
use super::{a_bundle, an_identity, import, list};

const COLUMNS: &str = "SELECT not_after || ' ' || valid_until || ' ' || renewal_time FROM \"key\" ORDER BY id";

on_both! {
    async fn keys_from_before_they_had_next_material_are_kept(server) {
        let mut server = server;
        let alpha = server.client("alpha");
        for request in [an_identity(&server, "identity"), a_bundle(&server, "bundle")] {
            import(&alpha, request).await;
        }
        let before = list(&alpha).await;
        server.stop().await;
        let written = server.sql(COLUMNS).await;
        assert_eq!(written.len(), 2);
        for index in ["activate_time", "renewal_time"] {
            server.sql(&format!("DROP INDEX key_{index}_idx")).await;
        }
        for column in ["activate_time", "next_not_after", "valid_until", "renewal_time"] {
            server.sql(&format!("ALTER TABLE \"key\" DROP COLUMN {column}")).await;
        }
        let not_null: &[&str] = match server.backend() {
            Backend::Sqlite => &[
                "ALTER TABLE \"key\" RENAME COLUMN not_after TO kept",
                "ALTER TABLE \"key\" ADD COLUMN not_after bigint NOT NULL DEFAULT 0",
                "UPDATE \"key\" SET not_after = kept",
                "ALTER TABLE \"key\" DROP COLUMN kept",
            ],
            Backend::Postgres => &["ALTER TABLE \"key\" ALTER COLUMN not_after SET NOT NULL"],
        };
        for statement in not_null {
            server.sql(statement).await;
        }
        server.sql("DELETE FROM seaql_migrations WHERE version = 'm0007_key_material'").await;

        server.restart().await;
        let alpha = server.client("alpha");
        assert_eq!(list(&alpha).await, before);
        assert_eq!(server.sql(COLUMNS).await, written);
        let issue = v1::CertificateIssue::SigningRequest.into();
        generate(&alpha, request("pending", v1::KeyGeneration { issue, ..Default::default() })).await;
        for (filter, count) in [("not_after:*", 2), ("NOT not_after:*", 1), ("CLIENT", 2)] {
            let request = v1::ListKeysRequest { filter: filter.to_owned(), ..Default::default() };
            let listed = collect::items(alpha.keys().list_keys(request).await).await.unwrap();
            assert_eq!(listed.len(), count, "{filter}");
        }
    }
}

//! Comparisons with the fields of each list.

use jackfield_testkit::{Ask, List, on_both};

use super::World;
use crate::steps;

on_both! {
    async fn connectors(server) {
        let world = World::create(&server).await;
        let bundle = world.id("bundle").to_owned();
        world.check(List::Connectors, &[
            // Names ignore letter case, even if they are compared as a whole.
            ("name = gmail", &["gmail"]),
            ("name = \"NEW YORK GIANTS\"", &["giants"]),
            ("name = \"GROSSE STRASSE\"", &["street"]),
            ("name = \"große straße\"", &["street"]),
            ("name = york", &[]),
            ("name:york", &["giants"]),
            ("name:STRASSE", &["street"]),
            ("name != gmail", &["decoy", "giants", "percent", "quotes", "street"]),
            ("name = New*", &["giants"]),
            ("name = *Giants", &["giants"]),
            ("name = \"*york*\"", &["giants"]),
            ("name = *STRASSE", &["street"]),
            ("name != 100*", &["giants", "gmail", "quotes", "street"]),
            ("name = 100%*", &["percent"]),
            ("name = \"100_*\"", &[]),
            ("name:*", &["decoy", "giants", "gmail", "percent", "quotes", "street"]),
            // Other texts respect it, except with ":".
            ("description = \"Reads MAIL of the Ärzte\"", &["gmail"]),
            ("description = \"Reads MAIL of the A\u{308}rzte\"", &[]),
            ("description:\"the a\u{308}RZTE\"", &["gmail"]),
            ("description = \"reads mail of the ärzte\"", &[]),
            ("description = \"Reads*\"", &["gmail"]),
            ("description = \"reads*\"", &[]),
            ("description = \"*Ärzte\"", &["gmail"]),
            ("description = \"*ärzte\"", &[]),
            ("description:MAIL", &["gmail"]),
            ("description:\"mail of\"", &["gmail"]),
            ("description:ärzte", &["gmail"]),
            ("description:ÄRZTE", &["gmail"]),
            ("description:Ä", &["gmail"]),
            ("description:reads*", &["gmail"]),
            ("description:*ÄRZTE", &["gmail"]),
            ("description:mail*", &[]),
            ("description:*mail", &[]),
            ("description:*MAIL*", &["gmail"]),
            ("description = \"back\\\\slash\"", &["percent"]),
            ("description:back\\slash", &["percent"]),
            ("description = \"a\\*b (c)\"", &["quotes"]),
            ("description = \"a\\*b*\"", &["quotes"]),
            ("description = \"*b*\"", &["percent", "quotes"]),
            // A text without a value is the empty text, and so differs from any other.
            ("description != x", &["decoy", "giants", "gmail", "percent", "quotes", "street"]),
            ("description != a*", &["decoy", "giants", "gmail", "percent", "street"]),
            ("NOT description = x", &["decoy", "giants", "gmail", "percent", "quotes", "street"]),
            ("-description:a", &["decoy", "giants", "street"]),
            ("description:*", &["gmail", "percent", "quotes"]),
            ("NOT description:*", &["decoy", "giants", "street"]),
            ("description != *", &["decoy", "giants", "street"]),
            ("description = \"\"", &["decoy", "giants", "street"]),
            ("description != \"\"", &["gmail", "percent", "quotes"]),
            ("kind = generic", &["gmail", "quotes"]),
            ("kind:generic", &["gmail", "quotes"]),
            ("kind != generic", &["decoy", "giants", "percent", "street"]),
            ("kind = api_key OR kind = license", &["decoy", "percent", "street"]),
            ("kind = client_certificate", &[]),
            ("enabled = true", &["decoy", "gmail", "percent", "quotes", "street"]),
            ("enabled:false", &["giants"]),
            ("enabled != true", &["giants"]),
            ("-enabled = true", &["giants"]),
            ("enabled:*", &["decoy", "giants", "gmail", "percent", "quotes", "street"]),
            ("debug = true", &["quotes"]),
            ("url = \"https://Mail.example.com/login\"", &["gmail"]),
            ("url = https://mail.example.com/login", &[]),
            ("url = https://*", &["giants", "gmail", "street"]),
            ("url:certs", &[]),
            ("url:EXAMPLE.com", &["gmail", "street"]),
            ("url:*", &["giants", "gmail", "quotes", "street"]),
            ("-url:*", &["decoy", "percent"]),
            ("labels:env", &["giants", "gmail", "street"]),
            ("-labels:env", &["decoy", "percent", "quotes"]),
            ("labels:prod", &[]),
            ("labels:ENV", &[]),
            ("labels:*", &["giants", "gmail", "street"]),
            ("NOT labels:*", &["decoy", "percent", "quotes"]),
            ("labels.env:*", &["giants", "gmail", "street"]),
            ("labels.env = prod", &["gmail"]),
            ("labels.env:prod", &["gmail"]),
            ("labels.env = PROD", &[]),
            ("labels.env != prod", &["decoy", "giants", "percent", "quotes", "street"]),
            ("NOT labels.env = prod", &["decoy", "giants", "percent", "quotes", "street"]),
            ("labels.env = \"*rod*\"", &["gmail", "street"]),
            ("labels.env = Prod*", &["street"]),
            ("labels.env != *v", &["decoy", "gmail", "percent", "quotes", "street"]),
            ("labels:env labels.env != *v", &["gmail", "street"]),
            ("labels.`a.b/c` = x", &["giants"]),
            ("labels.\"a.b/c\" = x", &["giants"]),
            ("labels:\"a.b/c\"", &["giants"]),
            ("labels.env = prod labels.owner = team-a", &["gmail"]),
            ("labels.env = prod labels.owner = team-b", &[]),
            ("labels.env = team-a", &[]),
            ("trust_bundle_key:*", &["gmail"]),
            ("NOT trust_bundle_key:*", &["decoy", "giants", "percent", "quotes", "street"]),
            ("client_identity_key:*", &[]),
        ]).await;
        world.check_one(List::Connectors, &format!("trust_bundle_key = {bundle}"), &["gmail"]).await;
        world.check_one(List::Connectors, &format!("client_identity_key = {bundle}"), &[]).await;
        let others = &["decoy", "giants", "percent", "quotes", "street"];
        world.check_one(List::Connectors, &format!("trust_bundle_key != {bundle}"), others).await;
    }

    async fn connections(server) {
        let world = World::create(&server).await;
        let gmail = world.id("gmail").to_owned();
        world.check(List::Connections, &[
            ("name = SAML", &["saml"]),
            ("external_id = Ext-1", &["saml"]),
            ("external_id = ext-1", &[]),
            ("external_id:ext", &["saml"]),
            ("external_id != x", &["saml", "plain"]),
            ("NOT external_id = x", &["saml", "plain"]),
            ("-external_id:*", &["plain"]),
            ("type = SAML2", &["saml"]),
            ("type = CONNECTION_TYPE_SAML2", &["saml"]),
            ("type != CONNECTION_TYPE_SAML2", &["plain"]),
            ("type = OAUTH2 OR type = SAML2", &["saml", "plain"]),
            ("active = false", &["saml"]),
            ("active = true", &["plain"]),
            ("client_id = Client-X", &["saml"]),
            ("client_id:CLIENT", &["saml", "plain"]),
            ("client_id = *-x", &["plain"]),
            ("issuer_url = urn:saml:Issuer", &["saml"]),
            ("issuer_url:example", &["plain"]),
            ("authentication_url = https://login.example.com/authorize", &["saml", "plain"]),
            ("token_url = *token", &["saml", "plain"]),
            ("provider_tenant_id:*", &["saml"]),
            ("provider_tenant_id:école", &["saml"]),
            ("provider_tenant_id = école", &[]),
            ("tags.team = a", &["plain"]),
            ("tags.team:Blue", &["saml"]),
            ("tags:team", &["saml", "plain"]),
            ("tags.team != a", &["saml"]),
        ]).await;
        world.check_one(List::Connections, &format!("connector = {gmail}"), &["saml"]).await;
        world.check_one(List::Connections, &format!("connector != {gmail}"), &["plain"]).await;
    }

    async fn credentials(server) {
        let world = World::create(&server).await;
        let all = &["valid", "expired", "stale", "key"];
        world.check(List::Credentials, &[
            ("external_id = Cred-É1", &["valid"]),
            ("external_id = cred-é1", &[]),
            ("external_id:é1", &["valid"]),
            ("NOT external_id:*", &["expired", "stale", "key"]),
            ("user_id = ada", &["valid", "expired"]),
            ("user_id = Évé", &["stale"]),
            ("user_id = évé", &[]),
            ("user_id:évé", &["stale"]),
            ("user_id != ada", &["stale", "key"]),
            ("kind = OAUTH2", &["valid", "expired", "stale"]),
            ("kind = CREDENTIAL_KIND_API_KEY", &["key"]),
            // The state is computed on request.
            ("state = VALID", &["valid", "key"]),
            ("state = CREDENTIAL_STATE_EXPIRED", &["expired"]),
            ("state = NEEDS_REAUTH", &["stale"]),
            ("state != VALID", &["expired", "stale"]),
            ("NOT state = VALID", &["expired", "stale"]),
            ("state = REVOKED OR state = PENDING", &[]),
            ("state:*", all),
            ("expire_time:*", &["valid", "expired"]),
            ("NOT expire_time:*", &["stale", "key"]),
            ("expire_time > 2001-01-01T00:00:00Z", &["valid", "expired"]),
            ("expire_time != 2001-01-01T00:00:00Z", all),
            ("NOT expire_time > 2001-01-01T00:00:00Z", &["stale", "key"]),
            ("authorization_expire_time:*", &[]),
            ("NOT authorization_expire_time < 2001-01-01T00:00:00Z", all),
            ("provider_account_id = \"Account ÄÖ\"", &["valid"]),
            ("provider_account_id:äö", &["valid"]),
            ("is_default = true", all),
            ("is_default = false", &[]),
            ("refreshable = true", &["valid"]),
            ("-refreshable = true", &["expired", "stale", "key"]),
            ("labels.env = prod labels.tier = 1", &["key"]),
            ("labels.tier != 1", &["valid", "expired", "stale"]),
            ("connection:*", &["valid"]),
            ("NOT connection:*", &["expired", "stale", "key"]),
        ]).await;
        for (field, of, expected) in [
            ("connector", "gmail", &["valid"] as &[&str]),
            ("connection", "saml", &["valid"]),
            ("connection", "plain", &[]),
            ("user_connector", "bob giants", &["key"]),
        ] {
            world.check_one(List::Credentials, &format!("{field} = {}", world.id(of)), expected).await;
        }
        world.check_one(List::Credentials, &format!("NOT connection = {}", world.id("plain")), all).await;
        world.check_one(List::Credentials, &format!("connection != {}", world.id("plain")), all).await;
    }

    async fn configurations(server) {
        let world = World::create(&server).await;
        let defaults = &["of valid", "of expired", "of stale", "of key"];
        world.check(List::Configurations, &[
            ("external_id = \"Team A\"", &["team"]),
            ("external_id:\"team a\"", &["team"]),
            ("NOT external_id:*", defaults),
            ("user_id = ada", &["of valid", "of expired", "team"]),
            ("user_id:ÉVÉ", &["of stale"]),
            ("is_default = true", defaults),
            ("is_default != true", &["team"]),
        ]).await;
        for (field, of, expected) in [
            ("credential", "valid", &["of valid", "team"] as &[&str]),
            ("connector", "gmail", &["of valid", "team"]),
            ("connector", "percent", &["of expired"]),
            ("credential", "gmail", &[]),
        ] {
            world.check_one(List::Configurations, &format!("{field} = {}", world.id(of)), expected).await;
        }
    }

    async fn keys(server) {
        let world = World::create(&server).await;
        world.check(List::Keys, &[
            ("name = \"bundle of ärzte\"", &["bundle"]),
            ("name:ÄRZTE", &["bundle"]),
            ("type = TRUST_BUNDLE", &["bundle"]),
            ("type = KEY_TYPE_CLIENT_IDENTITY", &["identity"]),
            ("type != TRUST_BUNDLE", &["identity"]),
            ("not_after > 2001-01-01T00:00:00Z", &["bundle", "identity"]),
            ("not_after < 2001-01-01T00:00:00Z", &[]),
            ("labels.env = prod", &["bundle"]),
            ("-labels:env", &["identity"]),
        ]).await;
    }

    async fn applications(server) {
        let world = World::create(&server).await;
        world.check(List::Applications, &[
            ("name = \"gallery of ärzte\"", &["gallery"]),
            ("name:VAULT", &["vault"]),
            ("external_id = App-É1", &["gallery"]),
            ("external_id:app-é1", &["gallery"]),
            ("NOT external_id:*", &["vault"]),
            ("enabled = false", &["vault"]),
            ("connector:*", &["gallery"]),
            ("labels.env = prod", &["gallery"]),
            ("-labels:env", &["vault"]),
        ]).await;
        world.check_one(List::Applications, &format!("connector = {}", world.id("gmail")), &["gallery"]).await;
        world.check_one(List::Applications, &format!("connector != {}", world.id("gmail")), &["vault"]).await;
    }

    async fn permissions(server) {
        let world = World::create(&server).await;
        world.check(List::Permissions, &[
            ("company_id = Acme-1", &["ada at acme", "évé at acme"]),
            ("company_id = acme-1", &[]),
            ("company_id:ACME", &["ada at acme", "évé at acme"]),
            ("company_name = \"Acme Größe\"", &["ada at acme"]),
            ("company_name:GRÖSSE", &["ada at acme"]),
            ("company_name = initech", &["ada at initech"]),
            ("user_id = ada", &["ada at acme", "ada at initech"]),
            ("user_id:évé", &["évé at acme"]),
            ("company_id = Acme-1 user_id = ada", &["ada at acme"]),
        ]).await;
        let vault = format!("application = {}", world.id("vault"));
        world.check_one(List::Permissions, &vault, &["évé at acme"]).await;
    }

    async fn sessions(server) {
        let world = World::create(&server).await;
        world.check(List::Sessions, &[
            ("user_id = ada", &["ada in gallery"]),
            ("user_id:ÉVÉ", &["évé in vault"]),
            ("expire_time > 2100-01-01T00:00:00Z", &["ada in gallery", "évé in vault"]),
            ("expire_time < 2100-01-01T00:00:00Z", &[]),
        ]).await;
        let gallery = format!("application = {}", world.id("gallery"));
        world.check_one(List::Sessions, &gallery, &["ada in gallery"]).await;
    }

    async fn connector_events(server) {
        let world = World::create(&server).await;
        world.check(List::ConnectorEvents, &[
            ("operation = AUTHENTICATE_USER", &["ada unknown", "bob accepted"]),
            ("operation = CONNECTOR_EVENT_OPERATION_AUTHENTICATE_APPLICATION_USER", &["fault of évé"]),
            ("outcome = REJECTED", &["ada unknown"]),
            ("outcome != CONNECTOR_EVENT_OUTCOME_ACCEPTED", &["ada unknown", "fault of évé"]),
            ("reason = STATUS_UNEXPECTED", &["fault of évé"]),
            ("reason = status_unexpected", &[]),
            ("reason:status", &["fault of évé"]),
            ("reason = PASSWORD*", &["bob accepted"]),
            ("http_status >= 500", &["fault of évé"]),
            ("http_status = 404", &["ada unknown"]),
            ("http_status != 404", &["bob accepted", "fault of évé"]),
            ("NOT http_status:*", &["bob accepted"]),
            ("login_id = ada", &["ada unknown"]),
            ("login_id:évé", &["fault of évé"]),
            ("application_id = Gallery-1", &["ada unknown"]),
            ("NOT application_id:*", &["bob accepted", "fault of évé"]),
            ("create_time > 2000-01-01T00:00:00Z outcome = ACCEPTED", &["bob accepted"]),
        ]).await;
        let street = format!("connector = {}", world.id("street"));
        world.check_one(List::ConnectorEvents, &street, &["bob accepted", "fault of évé"]).await;
        let event = steps::an_event(world.id("gmail"));
        let request_id = event.request_id;
        steps::event(&server, "alpha", event).await;
        let ask = Ask::filter(format!("request_id = {request_id}"));
        assert_eq!(List::ConnectorEvents.rows(world.client(List::ConnectorEvents), &ask).await.unwrap().len(), 1);
    }

    async fn tenants(server) {
        let world = World::create(&server).await;
        world.check(List::Tenants, &[
            ("name = beta", &["beta"]),
            ("name = beta*", &["beta", "beta-2"]),
            ("name:ETA", &["beta", "beta-2"]),
            ("name != beta", &["alpha", "beta-2", "default"]),
            ("display_name = \"Ümlaut & Co\"", &["beta-2"]),
            ("display_name = \"ümlaut & co\"", &[]),
            ("display_name:ümlaut", &["beta-2"]),
            ("NOT display_name:*", &["alpha", "beta", "default"]),
        ]).await;
    }

    async fn user_connectors(server) {
        let world = World::create(&server).await;
        let all = &["ada gmail", "ada percent", "évé quotes", "bob giants", "zoe gmail"];
        world.check(List::UserConnectors, &[
            ("user_id = ada", &["ada gmail", "ada percent"]),
            ("user_id = Évé", &["évé quotes"]),
            ("user_id:évé", &["évé quotes"]),
            ("user_id = *o*", &["bob giants", "zoe gmail"]),
            // The state is computed on request.
            ("state = AUTHENTICATED", &["ada gmail"]),
            ("state = USER_CONNECTOR_STATE_NEEDS_REAUTH", &["ada percent", "évé quotes"]),
            ("state = DISABLED", &["bob giants"]),
            ("state = ATTACHED", &["zoe gmail"]),
            ("state != ATTACHED", &["ada gmail", "ada percent", "évé quotes", "bob giants"]),
            ("NOT state = DISABLED user_id = *o*", &["zoe gmail"]),
            ("state:*", all),
        ]).await;
        let gmail = world.id("gmail");
        world.check_one(List::UserConnectors, &format!("connector = {gmail}"), &["ada gmail", "zoe gmail"]).await;
        let other = format!("connector != {gmail} state != DISABLED");
        world.check_one(List::UserConnectors, &other, &["ada percent", "évé quotes"]).await;
    }

    async fn users(server) {
        let world = World::create(&server).await;
        world.check(List::Users, &[
            ("username = ÄNN", &["ann"]),
            ("username:b", &["bob"]),
            ("username = \"bob%\"", &["bob"]),
            ("email = \"ann@EXAMPLE.com\"", &["ann"]),
            ("NOT email:*", &["bob"]),
            ("email != \"x@example.com\"", &["ann", "bob"]),
            ("phone_number = \"+491701234567\"", &["ann"]),
            ("phone_number = \"+49*\"", &["ann"]),
            ("user_id = Platform-É1", &["ann"]),
            ("user_id = platform-É1", &[]),
            ("user_id:PLATFORM", &["ann"]),
            ("first_name = Ann", &["ann"]),
            ("first_name = ann", &[]),
            ("last_name:ÉM", &["ann"]),
            ("NOT last_name:*", &["bob"]),
            ("enabled = true", &["ann"]),
            ("NOT password_set = true", &["bob"]),
            ("labels.env = prod", &["ann"]),
            ("connector:*", &[]),
            ("create_time > 2000-01-01T00:00:00Z", &["ann", "bob"]),
            ("update_time < 2000-01-01T00:00:00Z", &[]),
        ]).await;
        world.check_one(List::Users, &format!("id = {}", world.id("bob")), &["bob"]).await;
    }
}
